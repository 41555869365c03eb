#include "worker/step.h"

#include <fmt/format.h>

namespace kvgrid::worker {

int layer_after(const ModelSpec& spec, StepKind kind, int layer) {
    ++layer;
    while (kind == StepKind::write && layer < spec.layer_count() && !spec.owns_kv(layer)) ++layer;
    return layer;
}

Error no_such_step(StepId step) {
    return {Errc::not_found,
            fmt::format("step {} is not open: it was committed, aborted, or lost with its grid", step.value)};
}

Status check_layer_order(const ModelSpec& spec, StepId step, int layer, int next_layer) {
    if (next_layer == spec.layer_count()) {
        return {Errc::wrong_state,
                fmt::format("layer {} of step {}: all layers are done; commit or abort it", layer, step.value)};
    }
    if (layer != next_layer) {
        return {Errc::wrong_state,
                fmt::format("layer {} of step {}: layer {} comes next", layer, step.value, next_layer)};
    }
    return {};
}

Status check_all_layers_done(const ModelSpec& spec, StepId step, int next_layer) {
    if (next_layer == spec.layer_count()) return {};
    return {Errc::wrong_state,
            fmt::format("step {} cannot be committed: layer {} comes next; run it or abort", step.value, next_layer)};
}

}  // namespace kvgrid::worker
