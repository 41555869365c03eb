#include "worker/shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "worker/head_slices.h"
#include "worker/token_runs.h"

namespace kvgrid::worker {

namespace {

Status check_window(const Window& window) {
    if (window.tokens >= 0 && window.sinks >= 0 && (window.sinks == 0 || window.slides())) return {};
    return {Errc::invalid_argument,
            fmt::format("window is {}, sinks {}: both must be 0 or more, and sinks need a window", window.tokens,
                        window.sinks)};
}

}  // namespace

Shard::Shard(int rank, std::uint64_t memory_bytes, Device& device)
    : rank_(rank), memory_bytes_(memory_bytes), memory_left_(memory_bytes), device_(device) {}

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
    const auto page_count = static_cast<std::uint32_t>(pages);
    const kernels::HeadShape heads{kv_heads.count * spec.group(), kv_heads.count, spec.head_dim};
    auto on_device =
        device_.make_model({spec, heads, grid, grid.head_part(rank_), grid.sequence_part(rank_)}, page_count);
    if (!on_device) return on_device.error();

    ShardModel model{.spec = spec,
                     .grid = grid,
                     .heads = heads,
                     .pool = std::make_unique<PagePool>(page_count),
                     .device = std::move(*on_device),
                     .streams = nullptr,
                     .pool_bytes = pages * spec.page_bytes()};
    model.streams = std::make_unique<StreamTable>(
        spec, grid, rank_, *model.pool,
        [device = model.device.get()](std::span<const kernels::PagePair> pairs) { device->copy_pages(pairs); });
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
    if (Status valid = check_window(window); !valid) return valid;
    if (Status opened = found->second.streams->open(id, window); !opened) return opened;
    model_of_sequence_.emplace(id, model);
    return {};
}

Status Shard::fork(SequenceId source, SequenceId target, std::int64_t tokens) {
    const auto model = model_of_open(source);
    if (!model) return model.error();
    if (model_of_sequence_.contains(target)) {
        return {Errc::already_exists, fmt::format("sequence {} is open already", target.value)};
    }
    if (Status forked = (*model)->streams->fork(source, target, tokens); !forked) return forked;
    model_of_sequence_.emplace(target, model_of(source));
    return {};
}

Status Shard::close(SequenceId id) {
    const auto model = model_of_open(id);
    if (!model) return model.error();
    if (Status closed = (*model)->streams->close(id); !closed) return closed;
    (*model)->device->forget(id);
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
    if (Status valid = check_window(window); !valid) return valid;
    return (*model)->streams->set_window(id, window);
}

Status Shard::check_readable(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count) {
    const auto model = model_of_open(id);
    if (!model) return model.error();
    if (Status free = (*model)->device->check_not_captured(); !free) return free;
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
    const DroppedTokens& dropped = sequence.dropped[kv_layer_index(spec, layer)];
    if (!dropped.empty() && first_token < dropped.end && first_token + token_count > dropped.first) {
        return {Errc::wrong_state, fmt::format("tokens {} to {} of layer {} left the window and were given back",
                                               dropped.first, dropped.end - 1, layer)};
    }
    return {};
}

// Rows count the tokens of the range that live here.
int Shard::list_runs(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count) {
    ShardModel& model = models_.at(model_of(id));
    const SequenceState& sequence = *model.streams->find(id);
    const auto mine =
        token_runs_of_part(first_token, token_count, sequence.spread, model.grid, model.grid.sequence_part(rank_));
    const std::size_t stream = static_cast<std::size_t>(kv_layer_index(model.spec, layer)) * model.heads.kv_heads;
    runs_.clear();
    int rows = 0;
    for (int head = 0; head < model.heads.kv_heads; ++head) {
        const auto& pages = sequence.streams[stream + head];
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
    return rows;
}

void Shard::read_kv(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count,
                    std::span<std::byte> out) {
    ShardModel& model = models_.at(model_of(id));
    const int rows = list_runs(id, layer, first_token, token_count);
    model.device->read(runs_, rows, out.first(2 * rows * model.heads.kv_heads * model.spec.row_bytes()));
}

Status Shard::check_writable(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count) {
    if (Status readable = check_readable(id, layer, first_token, token_count); !readable) return readable;
    const ShardModel& model = models_.at(model_of(id));
    if (model.spec.kv_dtype != KvDtype::as_model) {
        return {Errc::unsupported, fmt::format("the model keeps its KV in {}: tokens of its pages share scales, and "
                                               "cannot be rewritten; register it without kv_dtype",
                                               name_of(model.spec.kv_dtype))};
    }
    return {};
}

Status Shard::unshare(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count) {
    const ShardModel& model = models_.at(model_of(id));
    return model.streams->unshare(id, kv_layer_index(model.spec, layer), first_token, token_count);
}

void Shard::rewrite_kv(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count,
                       std::span<const std::byte> rows) {
    ShardModel& model = models_.at(model_of(id));
    const ModelSpec& spec = model.spec;
    const HeadRange heads = kv_heads_of_part(spec, model.grid, model.grid.head_part(rank_));
    const int spread = model.streams->find(id)->spread;
    const int mine = list_runs(id, layer, first_token, token_count);
    if (mine == 0) return;
    const std::size_t row = spec.row_bytes(), half = static_cast<std::size_t>(mine) * heads.count * row;
    std::vector<std::byte> own(2 * half);
    std::byte* to = own.data();
    for (const auto part : {rows.first(rows.size() / 2), rows.last(rows.size() / 2)}) {  // k, then v
        for (const TokenRun& run :
             token_runs_of_part(first_token, token_count, spread, model.grid, model.grid.sequence_part(rank_))) {
            const std::byte* from = part.data() + (run.first_token - first_token) * spec.kv_heads * row;
            to = copy_heads(from, run.token_count, spec.kv_heads, heads, row, to);
        }
    }
    model.device->write(runs_, mine, std::span(own).first(half), std::span(own).last(half));
}

Inventory Shard::inventory() const {
    Inventory inventory;
    for (const auto& [id, model] : models_) {
        inventory.models.push_back({id, model.spec, model.grid, model.pool_bytes});
        for (const auto& [sequence_id, sequence] : model.streams->all()) {
            inventory.sequences.push_back({sequence_id, id, sequence.length, static_cast<bool>(sequence.growth.step)});
        }
    }
    std::ranges::sort(inventory.models, {}, &Inventory::Model::id);
    std::ranges::sort(inventory.sequences, {}, &Inventory::Sequence::id);
    return inventory;
}

std::vector<ModelReport> Shard::report() const {
    std::vector<ModelReport> reports;
    for (const auto& [id, model] : models_) {
        reports.push_back({id, model.spec.page_bytes(), model.pool->counts(), model.streams->sequence_count(),
                           model.streams->stored_tokens(), model.streams->committed_tokens()});
    }
    std::ranges::sort(reports, {}, &ModelReport::model);
    return reports;
}

}  // namespace kvgrid::worker
