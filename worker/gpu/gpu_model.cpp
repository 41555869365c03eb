#include "worker/gpu/gpu_model.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/fp8_pages.h"
#include "worker/gpu/timeouts.h"

namespace kvgrid::worker {

using kernels::check_cuda;
using kernels::DeviceSpan;

namespace {

// What a layer call may bring, or take, through mapped host memory. Beyond, copies are faster than loads over the bus.
constexpr std::size_t kMappedBytesMax = 256 << 10;
constexpr std::size_t kScratchBytes = 768 << 20;  // of chunks over fp8, where one stream does not need more
constexpr std::size_t kGraphsMax = 4096;          // bounds the host memory that they take

void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, kernels::Stream stream) {
    if (bytes == 0) return;
    check_cuda(cudaMemcpyAsync(to, from, bytes, kind, stream), "cudaMemcpyAsync");
}

}  // namespace

// Whatever the captured launches depend on besides addresses.
struct GpuModel::GraphKey {
    std::size_t batch;
    int layer;
    std::size_t items, runs;
    int query_count_max, rows;
    bool appends, is_whole;
    kernels::UnitCut cut;
    const void* partial;  // where a join wants it

    auto operator<=>(const GraphKey&) const = default;
};

struct GpuModel::Graph {
    bool is_captured = false;
    GpuGraph graph;
};

GpuModel::GpuModel(const DeviceModelShape& shape, std::uint32_t page_count, const GpuStream& stream,
                   int multiprocessor_count, GpuCounters& counters)
    : shape_(shape),
      stream_(stream),
      multiprocessor_count_(multiprocessor_count),
      decode_blocks_(multiprocessor_count),
      counters_(counters),
      classes_(shape.spec),
      pages_(counters.memory, GpuMemoryKind::pages),
      lists_({static_cast<int>(shape.spec.kv_layers().size()), shape.heads.kv_heads, page_count}, counters.memory,
             stream),
      host_inputs_(counters.memory),
      host_outputs_(counters.memory),
      inputs_(counters.memory, GpuMemoryKind::scratch),
      outputs_(counters.memory, GpuMemoryKind::scratch),
      widened_(counters.memory, GpuMemoryKind::scratch),
      workspaces_{Workspace(counters), Workspace(counters), Workspace(counters), Workspace(counters),
                  Workspace(counters), Workspace(counters), Workspace(counters)} {
    pages_.grow(shape.spec.page_bytes() * page_count);
    for (Batch& batch : batches_) {
        for (std::size_t i = 0; i < classes_.representative.size(); ++i) {
            batch.plans.push_back(std::make_unique<BatchPlan>(shape_, multiprocessor_count, counters.memory));
        }
    }
}

GpuModel::~GpuModel() = default;

Status GpuModel::begin(std::span<const BatchPart> parts) {
    try {
        lists_.update(parts);
        reserve(parts);
    } catch (const kernels::CudaError& error) {
        cudaGetLastError();  // a refused allocation is no fault of later calls
        ++own_moves_;        // what should have grown is gone
        return {
            Errc::no_room,
            fmt::format("the GPU has no memory for the lists and the scratch of this step: {}; send fewer new tokens "
                        "at once, or give the worker less memory for pages",
                        error.what())};
    }
    return {};
}

// Memory for the step's layer calls, so that none of them can lack it: all ranks agree on a begin, and not on a layer.
void GpuModel::reserve(std::span<const BatchPart> parts) {
    std::size_t tokens = 0;
    int chunk_count = 0, list_pages_max = 0;
    kernels::DecodeShape shape{shape_.heads, kernels::kDecodeQueriesMax};
    for (const BatchPart& part : parts) {
        tokens += part.tokens;
        if (part.tokens <= kernels::kDecodeQueriesMax) continue;
        ++chunk_count;
        shape.chunk_query_count_max = std::max(shape.chunk_query_count_max, part.tokens);
        for (const auto& list : part.sequence->streams) {
            list_pages_max = std::max(list_pages_max, static_cast<int>(list.size()));
        }
    }
    const kernels::HeadShape& heads = shape_.heads;
    const std::size_t row = shape_.spec.row_bytes() * tokens;
    const std::size_t partial_row = (heads.head_dim + 1) * sizeof(float) * tokens;  // with its log-sum-exp
    const std::size_t output_row = shape_.grid.workers() == 1 ? row : partial_row;
    own_moves_ += inputs_.grow(row * (heads.query_heads + 2 * heads.kv_heads) + 3 * kGpuAlignment);
    own_moves_ += outputs_.grow(output_row * heads.query_heads + kGpuAlignment);
    if (shape_.spec.kv_dtype != KvDtype::as_model && chunk_count > 0) {
        own_moves_ += widened_.grow(scratch_bytes(shape, list_pages_max, chunk_count));
    }
}

void GpuModel::copy_pages(std::span<const kernels::PagePair> pairs) {
    const std::size_t bytes = pairs.size() * sizeof(kernels::PagePair);
    own_moves_ += host_inputs_.grow(bytes);
    std::memcpy(host_inputs_.data(), pairs.data(), bytes);
    kernels::copy_pages_on_device(
        {.slab = {pages_.data(), shape_.spec.page_bytes()},
         .pairs = {reinterpret_cast<const kernels::PagePair*>(host_inputs_.data()), pairs.size()}},
        stream_.get());
    stream_.wait(kGpuPatience);
}

void GpuModel::read(std::span<const kernels::PageRun> runs, int row_count, std::span<std::byte> out) {
    own_moves_ += host_inputs_.grow(runs.size_bytes());
    std::memcpy(host_inputs_.data(), runs.data(), runs.size_bytes());
    own_moves_ += outputs_.grow(out.size());
    const std::size_t bytes = out.size() / 2;
    const kernels::PageSlab slab{pages_.data(), shape_.spec.page_bytes()};
    const DeviceSpan<const kernels::PageRun> listed{reinterpret_cast<const kernels::PageRun*>(host_inputs_.data()),
                                                    runs.size()};
    const auto k = outputs_.span<std::byte>(0, bytes), v = outputs_.span<std::byte>(bytes, bytes);
    const kernels::HeadShape& heads = shape_.heads;
    if (shape_.spec.kv_dtype == KvDtype::fp8_e4m3) {
        kernels::read_fp8_pages_on_device(
            {heads.kv_heads, heads.head_dim, shape_.spec.dtype, row_count, slab, listed, k, v}, stream_.get());
    } else {
        kernels::read_pages_on_device(
            {heads.kv_heads, static_cast<int>(shape_.spec.row_bytes()), row_count, slab, listed, k, v}, stream_.get());
    }
    copy(out.data(), outputs_.data(), out.size(), cudaMemcpyDeviceToHost, stream_.get());
    stream_.wait(kGpuPatience);
}

void GpuModel::run(const DeviceLayer& layer) {
    const ScopedSpan span(layer.spans, layer.q.empty() ? SpanKind::append : SpanKind::attend, layer.operation);
    const auto start = std::chrono::steady_clock::now();
    Batch& batch = batch_of(layer);
    const BatchPlan& plan = plan_of(batch, layer);
    const Places places = place(layer);
    begun_.record(stream_);
    launch(layer, &batch - batches_.data(), plan, places);
    ended_.record(stream_);
    counters_.queue_ns += (std::chrono::steady_clock::now() - start).count();
    stream_.wait(kGpuPatience);
    fetch(layer, places);
    count(layer, plan);
}

// The batch of these steps, or the one that was not used for the longest time, to be made anew.
GpuModel::Batch& GpuModel::batch_of(const DeviceLayer& layer) {
    auto found =
        std::ranges::find_if(batches_, [&](const Batch& b) { return std::ranges::equal(b.steps, layer.steps); });
    if (found == batches_.end()) {
        found = std::ranges::min_element(batches_, {}, &Batch::last_used);
        found->steps.assign(layer.steps.begin(), layer.steps.end());
        found->made.assign(found->plans.size(), false);
    }
    found->last_used = ++use_count_;
    return *found;
}

BatchPlan& GpuModel::plan_of(Batch& batch, const DeviceLayer& layer) {
    const int of_class = classes_.class_of[layer.layer];
    BatchPlan& plan = *batch.plans[of_class];
    if (batch.made[of_class]) return plan;
    if (shape_.spec.deterministic) provide_blocks(BatchPlan::decode_blocks_needed(shape_, layer.parts, layer.layer));
    plan.make(layer.parts, {layer.layer, classes_.kv_layer_of[layer.layer], decode_blocks_}, lists_, stream_);
    batch.made[of_class] = true;
    return plan;
}

// Of a deterministic model, whose batches decide how many blocks they need: all plans are made for one number of them, since what calls
// leave in a workspace lies by it.
void GpuModel::provide_blocks(int needed) {
    if (needed <= decode_blocks_) return;
    while (decode_blocks_ < needed) decode_blocks_ *= 2;
    for (Batch& batch : batches_) batch.made.assign(batch.plans.size(), false);
    ++own_moves_;
}

GpuModel::Places GpuModel::place(const DeviceLayer& layer) {
    const std::size_t k_at = aligned_for_gpu(layer.q.size()), v_at = k_at + aligned_for_gpu(layer.k.size());
    const std::size_t in_bytes = v_at + layer.v.size();
    const std::size_t rows = layer.lse.size(), partial_bytes = aligned_for_gpu(layer.partial.size_bytes());
    const std::size_t out_bytes =
        layer.is_output_on_device ? 0
                                  : (layer.whole.empty() ? partial_bytes + rows * sizeof(float) : layer.whole.size());
    Places places;
    places.in_host_memory = in_bytes <= kMappedBytesMax && out_bytes <= kMappedBytesMax;
    own_moves_ += inputs_.grow(in_bytes);
    std::byte* in = inputs_.data();
    std::byte* out = nullptr;
    if (places.in_host_memory) {
        own_moves_ += host_inputs_.grow(kMappedBytesMax) + host_outputs_.grow(kMappedBytesMax);
        in = host_inputs_.data();
        out = host_outputs_.data();
        std::memcpy(in, layer.q.data(), layer.q.size());
        std::memcpy(in + k_at, layer.k.data(), layer.k.size());
        std::memcpy(in + v_at, layer.v.data(), layer.v.size());
        places.q_copy = {inputs_.data(), layer.q.size()};
    } else {
        own_moves_ += outputs_.grow(out_bytes);
        out = outputs_.data();
        copy(in, layer.q.data(), layer.q.size(), cudaMemcpyHostToDevice, stream_.get());
        copy(in + k_at, layer.k.data(), layer.k.size(), cudaMemcpyHostToDevice, stream_.get());
        copy(in + v_at, layer.v.data(), layer.v.size(), cudaMemcpyHostToDevice, stream_.get());
    }
    places.q = {in, layer.q.size()};
    places.k = {in + k_at, layer.k.size()};
    places.v = {in + v_at, layer.v.size()};
    places.whole = {out, layer.whole.size()};
    places.partial = {reinterpret_cast<float*>(out), layer.partial.size()};
    places.lse = {reinterpret_cast<float*>(out + partial_bytes), rows};
    if (layer.is_output_on_device) {
        places.partial = {layer.partial.data(), layer.partial.size()};
        places.lse = {layer.lse.data(), layer.lse.size()};
    }
    return places;
}

void GpuModel::queue(const DeviceLayer& layer, const BatchPlan& plan, const Places& places, kernels::Stream stream) {
    kernels::take_step_inputs({.kv_heads = shape_.heads.kv_heads,
                               .head_dim = shape_.heads.head_dim,
                               .dtype = shape_.spec.dtype,
                               .kv_dtype = shape_.spec.kv_dtype,
                               .row_count = layer.token_count,
                               .slab = {pages_.data(), shape_.spec.page_bytes()},
                               .entries = lists_.entries(),
                               .lists = plan.lists(),
                               .kv_layer = classes_.kv_layer_of[layer.layer],
                               .runs = plan.runs(),
                               .k = places.k,
                               .v = places.v,
                               .q = places.q_copy.size == 0 ? DeviceSpan<const std::byte>{} : places.q,
                               .q_copy = places.q_copy},
                              stream);
    if (layer.q.empty()) return;
    kernels::decode({.shape = plan.shape(),
                     .dtype = shape_.spec.dtype,
                     .kv_dtype = shape_.spec.kv_dtype,
                     .scale = static_cast<float>(shape_.spec.scale),
                     .soft_cap = static_cast<float>(shape_.spec.logit_soft_cap),
                     .row_count = layer.token_count,
                     .slab = {pages_.data(), shape_.spec.page_bytes()},
                     .items = plan.items(),
                     .lists = plan.lists(),
                     .entries = lists_.entries(),
                     .kv_layer = classes_.kv_layer_of[layer.layer],
                     .units = plan.units(),
                     .blocks = plan.blocks(),
                     .chunk_count = plan.chunk_count(),
                     .chunk_blocks = plan.chunk_blocks(),
                     .q = places.q_copy.size == 0 ? places.q : places.q_copy,
                     .rounded = places.whole,
                     .partial = places.partial,
                     .lse = places.lse,
                     .workspace = workspace_for(plan),
                     .scratch = scratch_for(plan),
                     .list_pages_max = plan.list_pages_max(),
                     .deterministic = shape_.spec.deterministic},
                    stream);
}

// Chunks over fp8 are widened into it: all their streams at once where that is not too much, else some after the others.
std::size_t GpuModel::scratch_bytes(const kernels::DecodeShape& shape, int list_pages_max, int chunk_count) const {
    const auto bytes_of = [&](int streams) { return kernels::decode_scratch_bytes(shape, list_pages_max, streams); };
    int streams = chunk_count * shape_.heads.kv_heads;
    while (streams > 1 && bytes_of(streams) > kScratchBytes) streams = (streams + 1) / 2;
    return bytes_of(streams);
}

DeviceSpan<std::byte> GpuModel::scratch_for(const BatchPlan& plan) {
    if (shape_.spec.kv_dtype == KvDtype::as_model || plan.chunk_count() == 0) return {};
    own_moves_ += widened_.grow(scratch_bytes(plan.shape(), plan.list_pages_max(), plan.chunk_count()));
    return widened_.span<std::byte>(0, widened_.size());
}

// What one call leaves in a workspace would lie elsewhere for another shape, so each number of rows has its own, and each with chunks
// beside it another one; chunks alone have the last, also beside decodes that need none.
DeviceSpan<float> GpuModel::workspace_for(const BatchPlan& plan) {
    const int rows = plan.shape().unit_rows();
    const int of_rows = rows == 8 ? 0 : (rows == 16 ? 1 : 2);
    const int decode_blocks = static_cast<int>(plan.blocks().size);
    const std::size_t floats = kernels::decode_workspace_floats(plan.shape(), decode_blocks);
    if (floats == 0) return {};
    const bool serves_decodes = plan.decode_count() > 0 && !plan.shape().cut.gives_units_blocks();
    auto& [workspace, made_for] = workspaces_[plan.chunk_count() == 0 ? of_rows : (serves_decodes ? 3 + of_rows : 6)];
    if (workspace.size() < floats * sizeof(float) || made_for != decode_blocks_) {
        made_for = decode_blocks_;
        own_moves_ += workspace.grow(floats * sizeof(float));
        kernels::reset_decode_workspace(workspace.span<float>(0, workspace.size() / sizeof(float)), stream_.get());
    }
    return workspace.span<float>(0, floats);
}

// Graphs hold addresses: they are worth nothing once a buffer has moved.
int GpuModel::move_count() const {
    int moves = own_moves_ + lists_.move_count();
    for (const Batch& batch : batches_) {
        for (const auto& plan : batch.plans) moves += plan->move_count();
    }
    return moves;
}

void GpuModel::launch(const DeviceLayer& layer, std::size_t batch_index, const BatchPlan& plan, const Places& places) {
    const bool is_small_decode = plan.chunk_count() == 0 && places.in_host_memory && !layer.q.empty();
    if (!is_small_decode) return queue(layer, plan, places, stream_.get());
    if (const int moves = move_count(); moves != moves_at_capture_ || graphs_.size() > kGraphsMax) {
        graphs_.clear();
        moves_at_capture_ = moves;
    }
    const GraphKey key{batch_index,
                       layer.layer,
                       plan.items().size,
                       plan.runs().size,
                       plan.shape().query_count_max,
                       layer.token_count,
                       !layer.k.empty(),
                       !layer.whole.empty(),
                       plan.shape().cut,
                       layer.is_output_on_device ? layer.partial.data() : nullptr};
    const auto [found, is_new] = graphs_.try_emplace(key);
    if (is_new) return queue(layer, plan, places, stream_.get());
    Graph& graph = found->second;
    if (!graph.is_captured) {
        graph.graph = GpuGraph::capture(stream_, [&](kernels::Stream stream) { queue(layer, plan, places, stream); });
        graph.is_captured = true;
        ++counters_.graph_captures;
    }
    graph.graph.launch(stream_);
    ++counters_.graph_launches;
}

void GpuModel::fetch(const DeviceLayer& layer, const Places& places) {
    if (layer.is_output_on_device) return;
    const auto take = [&](void* to, const void* from, std::size_t bytes) {
        if (bytes == 0) return;
        if (places.in_host_memory) {
            std::memcpy(to, from, bytes);
        } else {
            check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy of outputs");
        }
    };
    take(layer.whole.data(), places.whole.data, layer.whole.size());
    take(layer.partial.data(), places.partial.data, layer.partial.size_bytes());
    take(layer.lse.data(), places.lse.data, layer.lse.size_bytes());
}

void GpuModel::count(const DeviceLayer& layer, const BatchPlan& plan) {
    ++counters_.layer_calls;
    counters_.kernel_ns += ended_.since(begun_).count();
    if (layer.q.empty()) return;
    counters_.kv_bytes += plan.listed_pages() * shape_.spec.page_bytes();
    const auto count_path = [&](kernels::DecodePath path) { ++counters_.attention_calls[static_cast<int>(path)]; };
    if (plan.chunk_count() > 0)
        count_path(kernels::chunk_path_of(plan.shape(), shape_.spec.dtype, shape_.spec.kv_dtype));
    if (plan.decode_count() == 0) return;
    count_path(kernels::path_of(plan.shape(), shape_.spec.dtype, shape_.spec.kv_dtype));
    ++counters_.decode_calls;
    counters_.imbalance_sum += plan.imbalance();
}

}  // namespace kvgrid::worker
