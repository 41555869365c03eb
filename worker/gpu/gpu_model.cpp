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

constexpr std::size_t kScratchBytes = 768 << 20;  // of chunks over fp8, where one stream does not need more
constexpr std::size_t kGraphsMax = 4096;          // bounds the host memory that they take

}  // namespace

// Whatever the captured launches depend on besides addresses.
struct GpuModel::GraphKey {
    std::size_t batch;
    int layer;
    std::size_t items, runs;
    int query_count_max, rows;
    bool appends, is_whole;
    kernels::UnitCut cut;
    const void *q, *k, *v;     // where they lie in the GPU's memory, as its client or
    const void *output, *lse;  // a join wants them; else in buffers of this model
    std::uint64_t join;        // in whose mailboxes they are joined; 0: none

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
                  Workspace(counters), Workspace(counters), Workspace(counters)},
      epochs_(counters.graph_epochs) {
    pages_.grow(shape.spec.page_bytes() * page_count);
    for (Batch& batch : batches_) {
        for (std::size_t i = 0; i < classes_.representative.size(); ++i) {
            batch.plans.push_back(std::make_unique<BatchPlan>(shape_, multiprocessor_count, counters.memory));
        }
    }
}

GpuModel::~GpuModel() {
    if (is_queued_) cudaStreamSynchronize(stream_.get());  // what it says concerns nobody any more
}

void GpuModel::settle() {
    if (!is_queued_) return;
    stream_.wait(kGpuPatience);
    is_queued_ = false;
    counters_.kernel_ns += times_.take().count();
}

Status GpuModel::begin(std::span<const BatchPart> parts) {
    settle();
    try {
        lists_.update(parts);
        is_queued_ = true;
        if (!stream_.is_own()) settle();  // the program may launch its graphs in other streams
        reserve(parts);
    } catch (const kernels::CudaError& error) {
        return no_room(error);
    }
    return {};
}

Error GpuModel::no_room(const std::exception& cause) {
    cudaGetLastError();  // a refused allocation is no fault of later calls
    ++own_moves_;        // what should have grown is gone
    return {Errc::no_room,
            fmt::format("the GPU has no memory for the lists and the scratch of this step: {}; send fewer new tokens "
                        "at once, or give the worker less memory for pages",
                        cause.what())};
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
    staging_moves_ += inputs_.grow(row * (heads.query_heads + 2 * heads.kv_heads) + 3 * kGpuAlignment);
    staging_moves_ += outputs_.grow(output_row * heads.query_heads + kGpuAlignment);
    if (shape_.spec.kv_dtype != KvDtype::as_model && chunk_count > 0) {
        own_moves_ += widened_.grow(scratch_bytes(shape, list_pages_max, chunk_count));
    }
}

void GpuModel::copy_pages(std::span<const kernels::PagePair> pairs) {
    settle();
    const std::size_t bytes = pairs.size() * sizeof(kernels::PagePair);
    staging_moves_ += host_inputs_.grow(bytes);
    std::memcpy(host_inputs_.data(), pairs.data(), bytes);
    kernels::copy_pages_on_device(
        {.slab = {pages_.data(), shape_.spec.page_bytes()},
         .pairs = {reinterpret_cast<const kernels::PagePair*>(host_inputs_.data()), pairs.size()}},
        stream_.get());
    stream_.wait(kGpuPatience);
}

void GpuModel::read(std::span<const kernels::PageRun> runs, int row_count, std::span<std::byte> out) {
    settle();
    staging_moves_ += host_inputs_.grow(runs.size_bytes());
    std::memcpy(host_inputs_.data(), runs.data(), runs.size_bytes());
    staging_moves_ += outputs_.grow(out.size());
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
    check_cuda(cudaMemcpyAsync(out.data(), outputs_.data(), out.size(), cudaMemcpyDeviceToHost, stream_.get()),
               "cudaMemcpyAsync of pages");
    stream_.wait(kGpuPatience);
}

void GpuModel::write(std::span<const kernels::PageRun> runs, int row_count, std::span<const std::byte> k,
                     std::span<const std::byte> v) {
    settle();
    staging_moves_ += host_inputs_.grow(runs.size_bytes());
    std::memcpy(host_inputs_.data(), runs.data(), runs.size_bytes());
    const std::size_t v_at = aligned_for_gpu(k.size());
    staging_moves_ += inputs_.grow(v_at + v.size());
    check_cuda(cudaMemcpyAsync(inputs_.data(), k.data(), k.size(), cudaMemcpyHostToDevice, stream_.get()),
               "cudaMemcpyAsync of k");
    check_cuda(cudaMemcpyAsync(inputs_.data() + v_at, v.data(), v.size(), cudaMemcpyHostToDevice, stream_.get()),
               "cudaMemcpyAsync of v");
    kernels::append_on_device({.kv_heads = shape_.heads.kv_heads,
                               .row_bytes = static_cast<int>(shape_.spec.row_bytes()),
                               .row_count = row_count,
                               .slab = {pages_.data(), shape_.spec.page_bytes()},
                               .runs = {reinterpret_cast<const kernels::PageRun*>(host_inputs_.data()), runs.size()},
                               .k = inputs_.span<const std::byte>(0, k.size()),
                               .v = inputs_.span<const std::byte>(v_at, v.size())},
                              stream_.get());
    stream_.wait(kGpuPatience);
}

Status GpuModel::run(const DeviceLayer& layer) {
    const GpuStream::Capture capture = stream_.capture();
    if (Status valid = check(layer, capture); !valid) return valid;
    const ScopedSpan span(layer.spans, layer.q.empty() ? SpanKind::append : SpanKind::attend, layer.operation);
    const auto start = std::chrono::steady_clock::now();
    const Places places = place(layer);  // may wait, so that a plan that is made now is not waited for
    Batch& batch = batch_of(layer.steps);
    const BatchPlan& plan = plan_of(batch, layer.parts, layer.layer);
    if (capture == GpuStream::Capture::none && times_.is_full()) settle();
    is_queued_ = true;
    if (capture == GpuStream::Capture::active) {  // where nothing but launches is allowed
        const bool joins = joins_in_tail(layer, plan);
        queue(layer, plan, places, stream_.get(), joins ? layer.tail->exchange : nullptr);
        if (joins) layer.tail->is_queued = true;
    } else {
        times_.begin(stream_, plan.chunk_count() == 0);
        if (Status launched = launch(layer, &batch - batches_.data(), plan, places); !launched) return launched;
        times_.end(stream_);
    }
    counters_.queue_ns += (std::chrono::steady_clock::now() - start).count();
    count(!layer.q.empty(), plan);
    if (layer.leaves_nothing_to_host() && !layer.waits) return {};
    settle();
    if (!layer.leaves_nothing_to_host()) fetch(layer, places);
    return {};
}

void GpuModel::queue(const DeviceLayer& layer, const BatchPlan& plan, const Places& places, kernels::Stream stream,
                     const kernels::PeerExchange* join) {
    kernels::take_step_inputs(
        {.kv_heads = shape_.heads.kv_heads,
         .head_dim = shape_.heads.head_dim,
         .dtype = shape_.spec.dtype,
         .kv_dtype = shape_.spec.kv_dtype,
         .row_count = layer.token_count,
         .slab = {pages_.data(), shape_.spec.page_bytes()},
         .entries = lists_.entries(),
         .lists = plan.lists(),
         .kv_layer = classes_.kv_layer_of[layer.layer],
         .first_kv_head = places.first_kv_head,
         .q_offset_bytes = places.first_kv_head * shape_.heads.group() * static_cast<int>(shape_.spec.row_bytes()),
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
                     .deterministic = shape_.spec.deterministic,
                     .join = join},
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

// Graphs hold addresses: they are worth nothing once a buffer has moved. Those of staged tensors are not counted.
int GpuModel::move_count() const {
    int moves = own_moves_ + lists_.move_count();
    for (const Batch& batch : batches_) {
        for (const auto& plan : batch.plans) moves += plan->move_count();
    }
    return moves;
}

// A block that waits for another rank's holds its SM: all must have room at once, beside those of other ranks where these share the GPU.
bool GpuModel::joins_in_tail(const DeviceLayer& layer, const BatchPlan& plan) const {
    if (layer.tail == nullptr || plan.chunk_count() > 0 || plan.decode_count() == 0) return false;
    if (!kernels::can_join(plan.shape(), shape_.spec.dtype, shape_.spec.kv_dtype)) return false;
    return plan.blocks().size <= static_cast<std::size_t>(multiprocessor_count_);
}

Status GpuModel::launch(const DeviceLayer& layer, std::size_t batch_index, const BatchPlan& plan,
                        const Places& places) {
    const bool is_small_decode = plan.chunk_count() == 0 && places.in_host_memory && !layer.q.empty();
    const bool has_places = layer.inputs_in == TensorMemory::device;
    // A program that embeds the shard captures graphs of its own; a client's call waits, and comes again with the same places.
    if (!is_small_decode || (has_places && !layer.waits && layer.tail == nullptr)) {
        queue(layer, plan, places, stream_.get());
        return {};
    }
    if (const int moves = move_count() + staging_moves_; moves != moves_at_capture_ || graphs_.size() > kGraphsMax) {
        graphs_.clear();
        moves_at_capture_ = moves;
    }
    const bool is_taken = layer.outputs_in == TensorMemory::device, joins = joins_in_tail(layer, plan);
    const GraphKey key{batch_index,
                       layer.layer,
                       plan.items().size,
                       plan.runs().size,
                       plan.shape().query_count_max,
                       layer.token_count,
                       !layer.k.empty(),
                       !layer.whole.empty(),
                       plan.shape().cut,
                       has_places ? places.q.data : nullptr,
                       has_places ? places.k.data : nullptr,
                       has_places ? places.v.data : nullptr,
                       joins ? layer.tail->exchange->merged : (is_taken ? places.output() : nullptr),
                       is_taken ? places.lse.data : nullptr,
                       joins ? layer.tail->serial : 0};
    const auto [found, is_new] = graphs_.try_emplace(key);
    if (is_new) {  // which may load kernels, as nobody may while others wait for it
        queue(layer, plan, places, stream_.get());
        return {};
    }
    Graph& graph = found->second;
    if (!graph.is_captured) {
        graph.graph = GpuGraph::capture(stream_, [&](kernels::Stream stream) {
            queue(layer, plan, places, stream, joins ? layer.tail->exchange : nullptr);
        });
        graph.is_captured = true;
        ++counters_.graph_captures;
    }
    if (joins) {
        if (Status met = layer.tail->meet(); !met) return met;
        layer.tail->is_queued = true;
    }
    graph.graph.launch(stream_);
    ++counters_.graph_launches;
    return {};
}

void GpuModel::count(bool attends, const BatchPlan& plan) {
    ++counters_.layer_calls;
    if (!attends) return;
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
