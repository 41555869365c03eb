// The part of Shard that runs steps: begin, layers, commit, abort.

#include <fmt/format.h>

#include <unordered_set>

#include "worker/shard.h"
#include "worker/token_runs.h"

namespace kvgrid::worker {

namespace {

// Bounds what one step can make a worker allocate for its rows.
constexpr int kStepTokensMax = 65'536;

}  // namespace

Status Shard::check_begin(const BeginStep& request) const {
    const ShardModel* model = find_model(request.model);
    if (!model) return {Errc::not_found, fmt::format("model {} is not registered", request.model.value)};
    if (steps_.contains(request.step))
        return {Errc::already_exists, fmt::format("step {} is open already", request.step.value)};
    if (request.parts.empty()) return {Errc::invalid_argument, "the step names no sequence: it must name at least one"};

    bool one_at_a_time = false;
    for (int i = 0; i < model->spec.layer_count(); ++i) one_at_a_time |= model->spec.reads_later_layer(i);
    one_at_a_time &= request.kind == StepKind::attend;
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
                                "one token per sequence and step",
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
    Step step{request.model, request.kind, request.parts, {}, layer_after(model.spec, request.kind, -1)};
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
    return found != steps_.end() && found->second.kind == StepKind::attend;
}

Status Shard::check_layer(const ShardLayer& call) const {
    if (call.steps.empty()) return {Errc::invalid_argument, "the layer call names no step"};
    std::size_t tokens = 0;
    const Step* first = nullptr;
    for (StepId id : call.steps) {
        const auto found = steps_.find(id);
        if (found == steps_.end()) return no_such_step(id);
        const Step& step = found->second;
        if (!first) first = &step;
        if (step.model != first->model || step.kind != first->kind) {
            return {Errc::invalid_argument,
                    fmt::format("steps {} and {} are of different models or kinds", call.steps[0].value, id.value)};
        }
        const ModelSpec& spec = find_model(step.model)->spec;
        if (Status next = check_layer_order(spec, id, call.layer, step.next_layer); !next) return next;
        tokens += step.size.tokens;
    }
    const ShardModel& model = *find_model(first->model);
    const std::size_t row = model.spec.row_bytes();
    const bool attends = first->kind == StepKind::attend;
    const std::size_t kv_bytes = model.spec.owns_kv(call.layer) ? tokens * model.heads.kv_heads * row : 0;
    const std::size_t query_rows = attends ? tokens * model.heads.query_heads : 0;
    if (call.q.size() != query_rows * row || call.k.size() != kv_bytes || call.v.size() != kv_bytes ||
        call.partial.size() != query_rows * model.spec.head_dim || call.lse.size() != query_rows) {
        return {
            Errc::invalid_argument,
            fmt::format("layer {} of {} tokens: got {} bytes of q, {} of k, {} of v; must be {}, {}, {}", call.layer,
                        tokens, call.q.size(), call.k.size(), call.v.size(), query_rows * row, kv_bytes, kv_bytes)};
    }
    return {};
}

Status Shard::layer(const ShardLayer& call) {
    if (Status valid = check_layer(call); !valid) return valid;
    const Step& first = steps_.at(call.steps[0]);
    ShardModel& model = models_.at(first.model);
    if (model.spec.owns_kv(call.layer)) append_layer(model, call);
    if (first.kind == StepKind::attend) attend_layer(model, call);
    for (StepId id : call.steps) {
        Step& step = steps_.at(id);
        step.next_layer = layer_after(model.spec, step.kind, call.layer);
    }
    return {};
}

std::size_t Shard::stream_index(const ShardModel& model, int layer, int head) const {
    const int kv_layer = model.streams->kv_layer_index(model.spec.layers[layer].kv_layer);
    return static_cast<std::size_t>(kv_layer) * model.heads.kv_heads + head;
}

void Shard::append_layer(ShardModel& model, const ShardLayer& call) {
    const ScopedSpan span(call.spans, SpanKind::append, call.operation);
    runs_.clear();
    int row = 0;
    const std::size_t stream = stream_index(model, call.layer, 0);
    for (StepId id : call.steps) {
        for (const auto& part : steps_.at(id).parts) {
            const SequenceState& sequence = *model.streams->find(part.sequence);
            const auto mine = token_runs_of_part(sequence.length, part.tokens, sequence.spread, model.grid,
                                                 model.grid.sequence_part(rank_));
            for (int head = 0; head < model.heads.kv_heads; ++head) {
                const auto& pages = sequence.streams[stream + head];
                std::size_t entry = pages.size() - mine.size();  // the new tokens' pages are the last ones
                for (const TokenRun& run : mine) {
                    const int first_row = row + static_cast<int>(run.first_token - sequence.length);
                    runs_.push_back({pages[entry++].page, run.slot(), run.token_count, first_row, head});
                }
            }
            row += part.tokens;
        }
    }
    kernels::append_cpu({.kv_heads = model.heads.kv_heads,
                         .head_dim = model.spec.head_dim,
                         .dtype = model.spec.dtype,
                         .slab = model.pool->slab(),
                         .runs = runs_,
                         .row_count = row,
                         .k = call.k,
                         .v = call.v},
                        threads_);
}

void Shard::attend_layer(ShardModel& model, const ShardLayer& call) {
    const ScopedSpan span(call.spans, SpanKind::attend, call.operation);
    items_.clear();
    streams_of_items_.clear();
    std::size_t sequences = 0;
    for (StepId id : call.steps) sequences += steps_.at(id).parts.size();
    streams_of_items_.reserve(sequences * model.heads.kv_heads);  // the items point into it
    int row = 0;
    const std::size_t stream = stream_index(model, call.layer, 0);
    for (StepId id : call.steps) {
        for (const auto& part : steps_.at(id).parts) {
            const SequenceState& sequence = *model.streams->find(part.sequence);
            const Window window = window_of_layer(model.spec.layers[call.layer], sequence.window);
            const std::size_t first_stream = streams_of_items_.size();
            for (int head = 0; head < model.heads.kv_heads; ++head)
                streams_of_items_.emplace_back(sequence.streams[stream + head]);
            items_.push_back({.streams = std::span(streams_of_items_).subspan(first_stream),
                              .first_query = sequence.length,
                              .query_count = part.tokens,
                              .first_row = row,
                              .window = window.tokens,
                              .sinks = window.sinks});
            row += part.tokens;
        }
    }
    kernels::attention_cpu({.heads = model.heads,
                            .dtype = model.spec.dtype,
                            .scale = static_cast<float>(model.spec.scale),
                            .soft_cap = static_cast<float>(model.spec.logit_soft_cap),
                            .strictly_earlier = model.spec.reads_later_layer(call.layer),
                            .slab = model.pool->slab(),
                            .items = items_,
                            .row_count = row,
                            .q = call.q,
                            .partial = call.partial,
                            .lse = call.lse},
                           threads_);
}

Status Shard::commit(StepId id) {
    const auto found = steps_.find(id);
    if (found == steps_.end()) return no_such_step(id);
    const Step& step = found->second;
    ShardModel& model = models_.at(step.model);
    if (Status done = check_all_layers_done(model.spec, id, step.next_layer); !done) return done;
    for (const auto& part : step.parts) model.streams->settle(part.sequence);
    steps_.erase(found);
    return {};
}

Status Shard::abort(StepId id) {
    const auto found = steps_.find(id);
    if (found == steps_.end()) return no_such_step(id);
    ShardModel& model = models_.at(found->second.model);
    for (const auto& part : found->second.parts) model.streams->undo(part.sequence);
    steps_.erase(found);
    return {};
}

}  // namespace kvgrid::worker
