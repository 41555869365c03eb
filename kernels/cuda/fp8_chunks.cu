#include "kernels/cuda/fp8_chunks.h"

#include <algorithm>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;

// Streams that are in the scratch together: heads [first_head, + head_count) of items [first_item, + item_count).
struct Turn {
    int first_item, item_count;
    int first_head, head_count;

    int stream_count() const { return item_count * head_count; }
};

std::size_t plain_page_bytes(int head_dim) {
    return DevicePageLayout::of(head_dim, Dtype::bf16, KvDtype::as_model).page_bytes();
}

// [stream][list_pages_max] bf16 pages and their entries; [stream] lists; the schedule.
struct Scratch {
    std::byte* pages;
    PageEntry* entries;
    PrefillBlock* blocks;
    PrefillStream* streams;
    PageList* lists;
};

// Streams of one turn, each with a shape's chunks.
struct ScratchShape {
    int head_dim, list_pages_max, chunks_per_stream, stream_count;

    std::size_t page_count() const { return std::size_t{1} * stream_count * list_pages_max; }
    std::size_t pages_bytes() const { return page_count() * plain_page_bytes(head_dim); }
    std::size_t entries_bytes() const { return page_count() * sizeof(PageEntry); }
    std::size_t block_count() const {
        return std::max<std::size_t>(kPrefillCutBlocks, std::size_t{1} * stream_count * chunks_per_stream);
    }
    std::size_t blocks_bytes() const { return block_count() * sizeof(PrefillBlock); }
    std::size_t streams_bytes() const { return (stream_count + 1) * sizeof(PrefillStream); }
    std::size_t bytes() const {
        return pages_bytes() + entries_bytes() + blocks_bytes() + streams_bytes() + stream_count * sizeof(PageList);
    }

    Scratch place(std::byte* memory) const {
        std::byte* const entries = memory + pages_bytes();
        std::byte* const blocks = entries + entries_bytes();
        std::byte* const streams = blocks + blocks_bytes();
        std::byte* const lists = streams + streams_bytes();
        return {memory, reinterpret_cast<PageEntry*>(entries), reinterpret_cast<PrefillBlock*>(blocks),
                reinterpret_cast<PrefillStream*>(streams), reinterpret_cast<PageList*>(lists)};
    }
};

ScratchShape scratch_shape_of(const Fp8Chunks& chunks, int stream_count) {
    return {chunks.shape.heads.head_dim, chunks.list_pages_max, chunks.shape.chunks_per_stream(), stream_count};
}

// Whether any query of the item may see any token of the page.
__device__ bool is_visible(const DecodeItem& item, const PageEntry& entry) {
    if (entry.first_token >= item.first_query + item.query_count) return false;
    const std::int64_t oldest = item.first_query - item.window + 1;
    return item.window == 0 || entry.first_token + entry.token_count > oldest || entry.first_token < item.sinks;
}

// The K and V of a page's tokens.
__device__ void widen_page(int head_dim, int token_count, const std::byte* from, std::byte* to) {
    constexpr int kChunkBytes = DevicePageLayout::kChunkBytes;
    const DevicePageLayout source = DevicePageLayout::of(head_dim, Dtype::bf16, KvDtype::fp8_e4m3);
    const DevicePageLayout target = DevicePageLayout::of(head_dim, Dtype::bf16, KvDtype::as_model);
    const float2 scales = *reinterpret_cast<const float2*>(from + source.trailer_offset());
    const int chunks_per_row = head_dim / kChunkBytes, chunk_count = token_count * chunks_per_row;
    for (int index = threadIdx.x; index < 2 * chunk_count; index += kThreads) {
        const bool is_v = index >= chunk_count;
        const int at = is_v ? index - chunk_count : index;
        const int token = at / chunks_per_row, dim = at % chunks_per_row * kChunkBytes;
        const std::byte* const block = from + (is_v ? source.block_bytes() : 0);
        const uint4 words = *reinterpret_cast<const uint4*>(block + source.offset(token, dim));
        const std::uint32_t fours[] = {words.x, words.y, words.z, words.w};
        std::uint32_t pairs[8];
#pragma unroll
        for (int four = 0; four < 4; ++four) widen_e4m3(fours[four], pairs[2 * four], pairs[2 * four + 1]);
        const float scale = is_v ? scales.y : scales.x;
#pragma unroll
        for (std::uint32_t& pair : pairs) {
            pair = Bf16::pack(F16::widen(static_cast<std::uint16_t>(pair)) * scale,
                              F16::widen(static_cast<std::uint16_t>(pair >> 16)) * scale);
        }
        std::byte* const row = to + (is_v ? target.block_bytes() : 0);
        *reinterpret_cast<uint4*>(row + target.offset(token, 2 * dim)) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        *reinterpret_cast<uint4*>(row + target.offset(token, 2 * dim + kChunkBytes)) = {pairs[4], pairs[5], pairs[6],
                                                                                        pairs[7]};
    }
}

struct WidenStreams {
    int head_dim, kv_heads, kv_layer;
    const std::byte* slab;
    std::size_t page_bytes, plain_page_bytes;
    const DecodeItem* items;
    const PageList* lists;
    const PageEntry* entries;
    Turn turn;
    Scratch scratch;
};

// One block per page of a list and stream.
__global__ __launch_bounds__(kThreads) void widen_streams(const __grid_constant__ WidenStreams work) {
    const int position = blockIdx.x, stream = blockIdx.y, list_pages_max = gridDim.x;
    const int item_index = work.turn.first_item + stream / work.turn.head_count;
    const int head = work.turn.first_head + stream % work.turn.head_count;
    const PageList list = work.lists[item_index * work.kv_heads + head];
    const int page = stream * list_pages_max + position;
    if (position == 0 && threadIdx.x == 0) work.scratch.lists[stream] = {page, list.count};
    if (position >= list.count) return;
    const PageEntry entry = work.entries[list.at_layer(work.kv_layer) + position];
    if (threadIdx.x == 0) {
        work.scratch.entries[page] = {static_cast<std::uint32_t>(page), entry.token_count, entry.first_token};
    }
    if (!is_visible(work.items[item_index], entry)) return;
    widen_page(work.head_dim, static_cast<int>(entry.token_count), work.slab + entry.page * work.page_bytes,
               work.scratch.pages + page * work.plain_page_bytes);
}

template <class T>
T* moved(T* pointer, std::size_t count) {
    return pointer == nullptr ? nullptr : pointer + count;
}

// Over the scratch, and from the turn's first head on: rows of q and of the outputs lie as far apart as before.
DecodeArguments arguments_of(const Fp8Chunks& chunks, const Turn& turn, const Scratch& scratch) {
    DecodeArguments arguments = chunks.arguments;
    const int head_dim = chunks.shape.heads.head_dim;
    const std::size_t heads_before = std::size_t{1} * turn.first_head * chunks.shape.heads.group();
    arguments.slab = scratch.pages;
    arguments.page_bytes = plain_page_bytes(head_dim);
    arguments.entries = scratch.entries;
    arguments.kv_layer = 0;
    arguments.q = static_cast<const std::uint16_t*>(arguments.q) + heads_before * head_dim;
    DecodeOutputs& outputs = arguments.outputs;
    outputs.rounded = moved(static_cast<std::uint16_t*>(outputs.rounded), heads_before * head_dim);
    outputs.partial = moved(outputs.partial, heads_before * head_dim);
    outputs.lse = moved(outputs.lse, heads_before);
    return arguments;
}

int multiprocessor_count() {
    int device = 0, count = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
    return count;
}

void run(const Fp8Chunks& chunks, const Turn& turn, Stream stream) {
    const HeadShape& heads = chunks.shape.heads;
    const ScratchShape scratch_shape = scratch_shape_of(chunks, turn.stream_count());
    const Scratch scratch = scratch_shape.place(chunks.scratch);
    const DecodeArguments& arguments = chunks.arguments;
    const WidenStreams widen{heads.head_dim,
                             heads.kv_heads,
                             arguments.kv_layer,
                             arguments.slab,
                             arguments.page_bytes,
                             plain_page_bytes(heads.head_dim),
                             chunks.items,
                             chunks.lists,
                             arguments.entries,
                             turn,
                             scratch};
    widen_streams<<<dim3(chunks.list_pages_max, turn.stream_count()), kThreads, 0, stream>>>(widen);
    check_launch("widen_streams");

    DecodeShape shape = chunks.shape;
    shape.heads.kv_heads = turn.head_count;
    shape.heads.query_heads = turn.head_count * heads.group();
    const std::size_t streams = turn.stream_count();
    schedule_prefill({.batch = {.shape = shape,
                                .items = {chunks.items + turn.first_item, static_cast<std::size_t>(turn.item_count)},
                                .lists = {scratch.lists, streams},
                                .entries = {scratch.entries, scratch_shape.page_count()},
                                .multiprocessor_count = multiprocessor_count()},
                      .blocks = {scratch.blocks, scratch_shape.block_count()},
                      .streams = {scratch.streams, streams + 1}},
                     stream);
    chunks.launch_prefill({.arguments = arguments_of(chunks, turn, scratch),
                           .blocks = scratch.blocks,
                           .block_count = static_cast<int>(scratch_shape.block_count())},
                          stream);
}

// The largest number of streams that a scratch has room for; room is not linear in it, as there are always blocks for a few.
int streams_at_once(const Fp8Chunks& chunks) {
    int count = 1;
    const int all = chunks.item_count * chunks.shape.heads.kv_heads;
    while (count < all && scratch_shape_of(chunks, count + 1).bytes() <= chunks.scratch_bytes) ++count;
    return count;
}

}  // namespace

void launch_fp8_chunks(const Fp8Chunks& chunks, Stream stream) {
    const int kv_heads = chunks.shape.heads.kv_heads, stream_count = streams_at_once(chunks);
    const int heads_at_once = std::min(kv_heads, stream_count);
    const int items_at_once = std::max(1, stream_count / kv_heads);
    for (int item = 0; item < chunks.item_count; item += items_at_once) {
        const int item_count = std::min(items_at_once, chunks.item_count - item);
        for (int head = 0; head < kv_heads; head += heads_at_once) {
            run(chunks, {item, item_count, head, std::min(heads_at_once, kv_heads - head)}, stream);
        }
    }
}

std::size_t fp8_scratch_bytes(const DecodeShape& shape, int list_pages_max, int stream_count) {
    return ScratchShape{shape.heads.head_dim, list_pages_max, shape.chunks_per_stream(), stream_count}.bytes();
}

}  // namespace kvgrid::kernels
