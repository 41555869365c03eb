#include "worker/step.h"

#include <fmt/format.h>

namespace kvgrid::worker {

Error no_such_step(StepId step) {
    return {Errc::not_found,
            fmt::format("step {} is not open: it was committed, aborted, or lost with its grid", step.value)};
}

Status check_kind(const ModelSpec& spec, StepKind kind) {
    if (kind != StepKind::iterate || spec.kv_dtype == KvDtype::as_model) return {};
    return {Errc::unsupported,
            fmt::format("model '{}' stores KV as {}, whose scales cannot be taken back: a step of kind iterate, which "
                        "writes tokens again, needs a model with kv_dtype as_model",
                        spec.name, name_of(spec.kv_dtype))};
}

StepProgress::StepProgress(const ModelSpec& spec, StepKind kind) : kind_(kind), next_layer_(layer_after(spec, -1)) {
    if (kind == StepKind::iterate) written_.assign(spec.layer_count(), false);
}

int StepProgress::layer_after(const ModelSpec& spec, int layer) const {
    ++layer;
    while (kind_ == StepKind::write && layer < spec.layer_count() && !spec.owns_kv(layer)) ++layer;
    return layer;
}

Status StepProgress::check_order(const ModelSpec& spec, StepId step, int layer) const {
    if (next_layer_ == spec.layer_count()) {
        return {Errc::wrong_state,
                fmt::format("layer {} of step {}: all layers are done; commit or abort it", layer, step.value)};
    }
    if (layer != next_layer_) {
        return {Errc::wrong_state,
                fmt::format("layer {} of step {}: layer {} comes next", layer, step.value, next_layer_)};
    }
    return {};
}

Result<Brings> StepProgress::check_iteration(const ModelSpec& spec, StepId step, int layer, LeftOut left_out) const {
    if (layer < 0 || layer >= spec.layer_count()) {
        return {Errc::invalid_argument, fmt::format("layer {} of step {}: model '{}' has layers 0 to {}", layer,
                                                    step.value, spec.name, spec.layer_count() - 1)};
    }
    const Brings brings{.q = !left_out.q, .kv = spec.owns_kv(layer) && !left_out.kv};
    const int source = spec.layers[layer].kv_layer;
    if (!brings.q && !brings.kv) {
        return {Errc::invalid_argument,
                fmt::format("layer {} of step {} is called with nothing: give it q{}", layer, step.value,
                            spec.owns_kv(layer) ? ", or k and v, or all" : "; it owns no KV")};
    }
    if (brings.q && !written_[source] && !(brings.kv && source == layer)) {
        return {Errc::wrong_state,
                fmt::format("layer {} of step {} reads the KV of layer {}, which the step has not written for its new "
                            "tokens yet: call layer {} with k and v first, with zeros where there is nothing to say",
                            layer, step.value, source, source)};
    }
    return brings;
}

Result<Brings> StepProgress::check(const ModelSpec& spec, StepId step, int layer, LeftOut left_out) const {
    if (kind_ == StepKind::iterate) return check_iteration(spec, step, layer, left_out);
    if (Status next = check_order(spec, step, layer); !next) return next.error();
    if (left_out != LeftOut{}) {
        return {Errc::invalid_argument,
                fmt::format("layer {} of step {} leaves out {}: only a step of kind iterate can be called so", layer,
                            step.value, left_out.q ? "q" : "k and v")};
    }
    return Brings{.q = kind_ == StepKind::attend, .kv = spec.owns_kv(layer)};
}

void StepProgress::pass(const ModelSpec& spec, int layer, Brings brings) {
    if (kind_ != StepKind::iterate) {
        next_layer_ = layer_after(spec, layer);
    } else if (brings.kv) {
        written_[layer] = true;
    }
}

Status StepProgress::check_complete(const ModelSpec& spec, StepId step) const {
    if (kind_ != StepKind::iterate) {
        if (next_layer_ == spec.layer_count()) return {};
        return {Errc::wrong_state, fmt::format("step {} cannot be committed: layer {} comes next; run it or abort",
                                               step.value, next_layer_)};
    }
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        if (!spec.owns_kv(layer) || written_[layer]) continue;
        return {
            Errc::wrong_state,
            fmt::format("step {} cannot be committed: layer {} owns KV, and has none for the new tokens yet; call it "
                        "with k and v, or abort",
                        step.value, layer)};
    }
    return {};
}

}  // namespace kvgrid::worker
