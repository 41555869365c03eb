#include "worker/shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "worker/token_runs.h"

namespace kvgrid::worker {

namespace {

// Bounds what one step can make a worker allocate for its rows.
constexpr int kStepTokensMax = 65'536;

Error no_such_step(StepId step) {
    return {Errc::not_found,
            fmt::format("step {} is not open: it was committed, aborted, or lost with its grid", step.value)};
}

}  // namespace

Shard::Shard(int rank, std::uint64_t memory_bytes, kernels::ThreadPool& threads)
    : rank_(rank), memory_left_(memory_bytes), threads_(threads) {}

Result<std::uint64_t> Shard::add_model(ModelId id, const ModelSpec& spec, const GridShape& grid,
                                       std::uint64_t pool_bytes) {
    if (models_.contains(id)) return {Errc::already_exists, fmt::format("model {} is here already", id.value)};
    if (pool_bytes > memory_left_) {
        return {Errc::no_room, fmt::format("a pool of {} bytes was asked for; rank {} has {} bytes that no model has",
                                           pool_bytes, rank_, memory_left_)};
    }
    const std::uint64_t budget = pool_bytes ? pool_bytes : memory_left_;
    const std::uint64_t pages = std::min<std::uint64_t>(budget / spec.page_bytes(), std::numeric_limits<PageId>::max());
    const HeadRange kv_heads = kv_heads_of_part(spec, grid, grid.head_part(rank_));
    const std::uint64_t pages_min = spec.kv_layers().size() * kv_heads.count;
    if (pages < pages_min) {
        return {Errc::no_room,
                fmt::format("{} bytes hold {} pages of {} bytes; the first {} tokens of one sequence need {}: give the "
                            "model a larger pool",
                            budget, pages, spec.page_bytes(), kPageTokens, pages_min)};
    }
    auto pool = PagePool::make(spec.page_bytes(), static_cast<std::uint32_t>(pages));
    if (!pool) return pool.error();

    ShardModel model{.spec = spec,
                     .grid = grid,
                     .heads = {kv_heads.count * spec.group(), kv_heads.count, spec.head_dim},
                     .pool = std::move(*pool),
                     .streams = nullptr,
                     .pool_bytes = pages * spec.page_bytes()};
    model.streams = std::make_unique<StreamTable>(spec, grid, rank_, *model.pool);
    memory_left_ -= model.pool_bytes;
    const std::uint64_t bytes = model.pool_bytes;
    models_.emplace(id, std::move(model));
    return bytes;
}

void Shard::remove_model(ModelId id) {
    const auto found = models_.find(id);
    if (found == models_.end()) return;
    memory_left_ += found->second.pool_bytes;
    std::erase_if(model_of_sequence_, [&](const auto& entry) { return entry.second == id; });
    found->second.streams.reset();
    models_.erase(found);
}

const ShardModel* Shard::find_model(ModelId id) const {
    const auto found = models_.find(id);
    return found == models_.end() ? nullptr : &found->second;
}

ModelId Shard::model_of(SequenceId id) const {
    const auto found = model_of_sequence_.find(id);
    return found == model_of_sequence_.end() ? ModelId{} : found->second;
}

const SequenceState* Shard::find_sequence(SequenceId id) const {
    const ShardModel* model = find_model(model_of(id));
    return model ? model->streams->find(id) : nullptr;
}

std::int64_t Shard::length_of(SequenceId id) const {
    const SequenceState* sequence = find_sequence(id);
    return sequence ? sequence->length : 0;
}

Result<ShardModel*> Shard::model_of_open(SequenceId id) {
    const auto found = models_.find(model_of(id));
    if (found == models_.end()) return {Errc::not_found, fmt::format("sequence {} is not open", id.value)};
    return &found->second;
}

Status Shard::open(SequenceId id, ModelId model, const Window& window) {
    const auto found = models_.find(model);
    if (found == models_.end()) return {Errc::not_found, fmt::format("model {} is not registered", model.value)};
    if (model_of_sequence_.contains(id))
        return {Errc::already_exists, fmt::format("sequence {} is open already", id.value)};
    if (window.tokens < 0 || window.sinks < 0 || (window.sinks > 0 && !window.slides())) {
        return {Errc::invalid_argument,
                fmt::format("window is {}, sinks {}: both must be 0 or more, and sinks need a window", window.tokens,
                            window.sinks)};
    }
    if (Status opened = found->second.streams->open(id, window); !opened) return opened;
    model_of_sequence_.emplace(id, model);
    return {};
}

Status Shard::fork(SequenceId source, SequenceId target) {
    const auto model = model_of_open(source);
    if (!model) return model.error();
    if (model_of_sequence_.contains(target)) {
        return {Errc::already_exists, fmt::format("sequence {} is open already", target.value)};
    }
    if (Status forked = (*model)->streams->fork(source, target); !forked) return forked;
    model_of_sequence_.emplace(target, model_of(source));
    return {};
}

Status Shard::close(SequenceId id) {
    const auto model = model_of_open(id);
    if (!model) return model.error();
    if (Status closed = (*model)->streams->close(id); !closed) return closed;
    model_of_sequence_.erase(id);
    return {};
}

Status Shard::truncate(SequenceId id, std::int64_t length) {
    const auto model = model_of_open(id);
    return model ? (*model)->streams->truncate(id, length) : Status(model.error());
}

Status Shard::set_window(SequenceId id, const Window& window) {
    const auto model = model_of_open(id);
    if (!model) return model.error();
    if (window.tokens < 0 || window.sinks < 0 || (window.sinks > 0 && !window.slides())) {
        return {Errc::invalid_argument,
                fmt::format("window is {}, sinks {}: both must be 0 or more, and sinks need a window", window.tokens,
                            window.sinks)};
    }
    return (*model)->streams->set_window(id, window);
}

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
    Step step{request.model, request.kind, request.parts, 0, layer_after(model, request.kind, -1)};
    for (const auto& part : request.parts) step.tokens += part.tokens;
    steps_.emplace(request.step, std::move(step));
    return {};
}

int Shard::tokens_that_fit(const BeginStep& request) const {
    const ShardModel* model = find_model(request.model);
    return model ? model->streams->tokens_that_fit(request.parts) : 0;
}

int Shard::layer_after(const ShardModel& model, StepKind kind, int layer) {
    ++layer;
    while (kind == StepKind::write && layer < model.spec.layer_count() && !model.spec.owns_kv(layer)) ++layer;
    return layer;
}

ModelId Shard::model_of_step(StepId step) const {
    const auto found = steps_.find(step);
    return found == steps_.end() ? ModelId{} : found->second.model;
}

int Shard::tokens_of_step(StepId step) const {
    const auto found = steps_.find(step);
    return found == steps_.end() ? 0 : found->second.tokens;
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
        const int layers = find_model(step.model)->spec.layer_count();
        if (call.layer != step.next_layer || call.layer == layers) {
            return {
                Errc::wrong_state,
                step.next_layer == layers
                    ? fmt::format("layer {} of step {}: all layers are done; commit or abort it", call.layer, id.value)
                    : fmt::format("layer {} of step {}: layer {} comes next", call.layer, id.value, step.next_layer)};
        }
        tokens += step.tokens;
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
        step.next_layer = layer_after(model, step.kind, call.layer);
    }
    return {};
}

std::size_t Shard::stream_index(const ShardModel& model, int layer, int head) const {
    const int kv_layer = model.streams->kv_layer_index(model.spec.layers[layer].kv_layer);
    return static_cast<std::size_t>(kv_layer) * model.heads.kv_heads + head;
}

void Shard::append_layer(ShardModel& model, const ShardLayer& call) {
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
    if (step.next_layer != model.spec.layer_count()) {
        return {Errc::wrong_state, fmt::format("step {} cannot be committed: layer {} comes next; run it or abort",
                                               id.value, step.next_layer)};
    }
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

Status Shard::check_readable(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count) {
    const auto model = model_of_open(id);
    if (!model) return model.error();
    const ModelSpec& spec = (*model)->spec;
    if (layer < 0 || layer >= spec.layer_count() || !spec.owns_kv(layer)) {
        return {Errc::invalid_argument, fmt::format("layer is {}: must be one of the model's {} layers that owns KV",
                                                    layer, spec.layer_count())};
    }
    const SequenceState& sequence = *(*model)->streams->find(id);
    if (first_token < 0 || token_count < 0 || token_count > sequence.length ||
        first_token > sequence.length - token_count) {
        return {Errc::invalid_argument, fmt::format("tokens {} and {} more: sequence {} has {}", first_token,
                                                    token_count, id.value, sequence.length)};
    }
    const DroppedTokens& dropped = sequence.dropped[(*model)->streams->kv_layer_index(layer)];
    if (!dropped.empty() && first_token < dropped.end && first_token + token_count > dropped.first) {
        return {Errc::wrong_state, fmt::format("tokens {} to {} of layer {} left the window and were given back",
                                               dropped.first, dropped.end - 1, layer)};
    }
    return {};
}

void Shard::read_kv(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count,
                    std::span<std::byte> out) {
    ShardModel& model = models_.at(model_of(id));
    const SequenceState& sequence = *model.streams->find(id);
    const auto mine =
        token_runs_of_part(first_token, token_count, sequence.spread, model.grid, model.grid.sequence_part(rank_));
    runs_.clear();
    int rows = 0;
    for (int head = 0; head < model.heads.kv_heads; ++head) {
        const auto& pages = sequence.streams[stream_index(model, layer, head)];
        rows = 0;
        auto entry = pages.begin();
        for (const TokenRun& run : mine) {
            const std::int64_t page_start = run.page() * kPageTokens;
            entry =
                std::lower_bound(entry, pages.end(), page_start,
                                 [](const kernels::PageEntry& e, std::int64_t token) { return e.first_token < token; });
            runs_.push_back({entry->page, run.slot(), run.token_count, rows, head});
            rows += run.token_count;
        }
    }
    const std::size_t bytes = rows * model.heads.kv_heads * model.spec.row_bytes();
    kernels::read_pages_cpu({.kv_heads = model.heads.kv_heads,
                             .head_dim = model.spec.head_dim,
                             .dtype = model.spec.dtype,
                             .slab = model.pool->slab(),
                             .runs = runs_,
                             .row_count = rows,
                             .k = out.subspan(0, bytes),
                             .v = out.subspan(bytes, bytes)},
                            threads_);
}

std::vector<ModelReport> Shard::report() const {
    std::vector<ModelReport> reports;
    for (const auto& [id, model] : models_) {
        reports.push_back({id, model.spec.page_bytes(), model.pool->counts(), model.streams->sequence_count(),
                           model.streams->stored_tokens()});
    }
    std::ranges::sort(reports, {}, &ModelReport::model);
    return reports;
}

}  // namespace kvgrid::worker
