// The part of Shard that runs steps: begin, layers, commit, abort.

#include <fmt/format.h>

#include <unordered_set>

#include "worker/shard.h"

namespace kvgrid::worker {

namespace {

// Bounds what one step can make a worker allocate for its rows.
constexpr int kStepTokensMax = 65'536;

Error not_for_graphs(StepId step) {
    return {Errc::unsupported,
            fmt::format("step {} is of kind iterate, whose layers cannot be captured: call them", step.value)};
}

}  // namespace

Status Shard::check_begin(const BeginStep& request) const {
    const ShardModel* model = find_model(request.model);
    if (!model) return {Errc::not_found, fmt::format("model {} is not registered", request.model.value)};
    if (Status free = model->device->check_not_captured(); !free) return free;
    if (steps_.contains(request.step))
        return {Errc::already_exists, fmt::format("step {} is open already", request.step.value)};
    if (request.parts.empty()) return {Errc::invalid_argument, "the step names no sequence: it must name at least one"};

    bool one_at_a_time = false;
    for (int i = 0; i < model->spec.layer_count(); ++i) one_at_a_time |= model->spec.reads_later_layer(i);
    one_at_a_time &= request.kind == StepKind::attend;
    if (Status possible = check_kind(model->spec, request.kind); !possible) return possible;
    std::unordered_set<SequenceId> named;
    std::int64_t tokens = 0;
    for (const StreamTable::Part& part : request.parts) {
        if (model_of(part.sequence) != request.model) {
            return {Errc::not_found,
                    fmt::format("sequence {} is not open with model {}", part.sequence.value, request.model.value)};
        }
        if (!named.insert(part.sequence).second) {
            return {
                Errc::invalid_argument,
                fmt::format("sequence {} is named twice: give all its new tokens in one part", part.sequence.value)};
        }
        if (part.tokens < 1) {
            return {Errc::invalid_argument,
                    fmt::format("sequence {} gets {} tokens: must be at least 1", part.sequence.value, part.tokens)};
        }
        if (one_at_a_time && part.tokens > 1) {
            return {Errc::unsupported,
                    fmt::format("sequence {} gets {} tokens: a model with layers that read a later layer's KV takes "
                                "one token per sequence and step, or more in a step of kind iterate",
                                part.sequence.value, part.tokens)};
        }
        tokens += part.tokens;
    }
    if (tokens > kStepTokensMax) {
        return {Errc::invalid_argument,
                fmt::format("the step has {} tokens: at most {}; split it", tokens, kStepTokensMax)};
    }
    return {};
}

Status Shard::begin(const BeginStep& request) {
    if (Status valid = check_begin(request); !valid) return valid;
    ShardModel& model = models_.at(request.model);
    if (Status grown = model.streams->grow(request.step, request.parts); !grown) return grown;
    parts_.clear();
    for (const auto& part : request.parts) parts_.push_back({model.streams->find(part.sequence), part.tokens});
    if (Status begun = model.device->begin(parts_); !begun) {
        for (const auto& part : request.parts) model.streams->undo(part.sequence);
        return begun;
    }
    Step step{request.model, request.kind, request.parts, {}, StepProgress(model.spec, request.kind)};
    for (const auto& part : request.parts) {
        step.size.tokens += part.tokens;
        step.size.context_tokens += model.streams->find(part.sequence)->length + part.tokens;
    }
    step.size.sequences = static_cast<int>(request.parts.size());
    steps_.emplace(request.step, std::move(step));
    return {};
}

int Shard::tokens_that_fit(const BeginStep& request) const {
    const ShardModel* model = find_model(request.model);
    return model ? model->streams->tokens_that_fit(request.parts) : 0;
}

ModelId Shard::model_of_step(StepId step) const {
    const auto found = steps_.find(step);
    return found == steps_.end() ? ModelId{} : found->second.model;
}

StepSize Shard::size_of_step(StepId step) const {
    const auto found = steps_.find(step);
    return found == steps_.end() ? StepSize{} : found->second.size;
}

bool Shard::attends(StepId step) const {
    const auto found = steps_.find(step);
    return found != steps_.end() && found->second.kind != StepKind::write;
}

// Whether these steps' layers can be called together.
Status Shard::check_batch(std::span<const StepId> steps) const {
    if (steps.empty()) return {Errc::invalid_argument, "the layer call names no step"};
    const Step* first = nullptr;
    for (StepId id : steps) {
        const auto found = steps_.find(id);
        if (found == steps_.end()) return no_such_step(id);
        const Step& step = found->second;
        if (!first) first = &step;
        if (step.model == first->model && step.kind == first->kind) continue;
        return {Errc::invalid_argument,
                fmt::format("steps {} and {} are of different models or kinds", steps[0].value, id.value)};
    }
    return {};
}

DeviceBatch Shard::batch_of(std::span<const StepId> steps) {
    const Step& first = steps_.at(steps[0]);
    StreamTable& streams = *models_.at(first.model).streams;
    parts_.clear();
    int tokens = 0;
    for (StepId id : steps) {
        const Step& step = steps_.at(id);
        for (const auto& part : step.parts) parts_.push_back({streams.find(part.sequence), part.tokens});
        tokens += step.size.tokens;
    }
    return {steps, parts_, tokens, first.kind != StepKind::write};
}

LeftOut Shard::left_out_of(const ShardLayer& call, const Step& step) {
    if (step.kind != StepKind::iterate) return {};
    return {.q = call.q.empty(), .kv = call.k.empty() && call.v.empty()};
}

Status Shard::check_layer(const ShardLayer& call) const {
    if (Status valid = check_batch(call.steps); !valid) return valid;
    const Step& first = steps_.at(call.steps[0]);
    const ShardModel& model = *find_model(first.model);
    const LeftOut left_out = left_out_of(call, first);
    Brings brings;
    std::size_t tokens = 0;
    for (StepId id : call.steps) {
        const Step& step = steps_.at(id);
        const auto checked = step.progress.check(model.spec, id, call.layer, left_out);
        if (!checked) return checked.error();
        brings = *checked;
        tokens += step.size.tokens;
    }
    const std::size_t row = model.spec.row_bytes();
    const int query_heads = call.has_all_heads ? model.spec.query_heads : model.heads.query_heads;
    const int kv_heads = call.has_all_heads ? model.spec.kv_heads : model.heads.kv_heads;
    const std::size_t q_bytes = brings.q ? tokens * query_heads * row : 0;
    const std::size_t kv_bytes = brings.kv ? tokens * kv_heads * row : 0;
    const std::size_t query_rows = brings.q ? tokens * model.heads.query_heads : 0;
    const bool has_outputs =
        call.whole.empty() ? call.partial.size() == query_rows * model.spec.head_dim && call.lse.size() == query_rows
                           : call.whole.size() == query_rows * row;
    if (call.q.size() != q_bytes || call.k.size() != kv_bytes || call.v.size() != kv_bytes || !has_outputs) {
        return {
            Errc::invalid_argument,
            fmt::format("layer {} of {} tokens: got {} bytes of q, {} of k, {} of v; must be {}, {}, {}", call.layer,
                        tokens, call.q.size(), call.k.size(), call.v.size(), q_bytes, kv_bytes, kv_bytes)};
    }
    return {};
}

Status Shard::layer(const ShardLayer& call) {
    if (Status valid = check_layer(call); !valid) return valid;
    const DeviceBatch batch = batch_of(call.steps);
    ShardModel& model = models_.at(steps_.at(call.steps[0]).model);
    Status run = model.device->run({.steps = batch.steps,
                                    .parts = batch.parts,
                                    .token_count = batch.token_count,
                                    .layer = call.layer,
                                    .q = call.q,
                                    .k = call.k,
                                    .v = call.v,
                                    .has_all_heads = call.has_all_heads,
                                    .whole = call.whole,
                                    .partial = call.partial,
                                    .lse = call.lse,
                                    .inputs_in = call.inputs_in,
                                    .outputs_in = call.outputs_in,
                                    .waits = call.waits,
                                    .tail = call.tail,
                                    .spans = call.spans,
                                    .operation = call.operation});
    if (!run) return run;
    const Brings brought{.q = !call.q.empty(), .kv = !call.k.empty()};
    for (StepId id : call.steps) steps_.at(id).progress.pass(model.spec, call.layer, brought);
    return {};
}

Result<std::uint64_t> Shard::prepare(std::span<const StepId> steps) {
    if (Status valid = check_batch(steps); !valid) return valid.error();
    if (steps_.at(steps[0]).kind == StepKind::iterate) return not_for_graphs(steps[0]);
    return models_.at(steps_.at(steps[0]).model).device->prepare(batch_of(steps));
}

Status Shard::replay(std::span<const StepId> steps, std::uint64_t graph_epoch) {
    if (Status valid = check_batch(steps); !valid) return valid;
    const Step& first = steps_.at(steps[0]);
    if (first.kind == StepKind::iterate) return not_for_graphs(steps[0]);
    const ModelSpec& spec = find_model(first.model)->spec;
    for (StepId id : steps) {
        if (const auto next = steps_.at(id).progress.check(spec, id, first.progress.next_layer(), {}); !next)
            return next.error();
    }
    layers_.clear();
    for (int layer = first.progress.next_layer(); layer < spec.layer_count();
         layer = first.progress.layer_after(spec, layer)) {
        layers_.push_back(layer);
    }
    if (Status replayed = find_model(first.model)->device->replay(steps, layers_, graph_epoch); !replayed)
        return replayed;
    for (StepId id : steps) steps_.at(id).progress.pass(spec, spec.layer_count() - 1, {});
    return {};
}

Status Shard::commit(StepId id) {
    const auto found = steps_.find(id);
    if (found == steps_.end()) return no_such_step(id);
    const Step& step = found->second;
    ShardModel& model = models_.at(step.model);
    if (Status done = step.progress.check_complete(model.spec, id); !done) return done;
    for (const auto& part : step.parts) model.streams->settle(part.sequence);
    model.device->end(id);
    steps_.erase(found);
    return {};
}

Status Shard::abort(StepId id) {
    const auto found = steps_.find(id);
    if (found == steps_.end()) return no_such_step(id);
    ShardModel& model = models_.at(found->second.model);
    for (const auto& part : found->second.parts) model.streams->undo(part.sequence);
    model.device->end(id);
    steps_.erase(found);
    return {};
}

}  // namespace kvgrid::worker
