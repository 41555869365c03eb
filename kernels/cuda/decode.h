#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/kv_dtype.h"
#include "kernels/cuda/decode_schedule.h"
#include "kernels/cuda/device_span.h"
#include "kernels/cuda/peer_exchange.h"
#include "kernels/cuda/prefill_schedule.h"
#include "kernels/page_entry.h"

namespace kvgrid::kernels {

// How a call was computed. `several_passes` and `general` are slower than they could be, and worth counting.
enum class DecodePath {
    one_pass,  // tensor cores; every page is read once
    several_passes,  // tensor cores; more than 32 rows of a group (16 if head_dim is 256): pages are read once for each so many
    chunks,          // tensor cores; pages are read once for each 128 rows of a group
    general,  // no tensor cores: f32, a head size without a kernel of its own, more than 8 new tokens that were not given as a chunk, or a chunk
              // in f16 over fp8, whose elements f16 may not hold
};
inline constexpr int kDecodePathCount = 4;
const char* name_of(DecodePath path);

// Attention of the new tokens of each sequence, a few or a chunk, over the pages of one shard, in GPU memory.
//
//   Shapes   q        [row_count, query_heads, head_dim]  in `dtype`
//            rounded  [row_count, query_heads, head_dim]  in `dtype`; or empty
//            partial  [row_count, query_heads, head_dim]  f32, normalised over the tokens of this shard; or empty
//            lse      [row_count, query_heads]            f32, natural log of the softmax denominator; or empty
//   Rule     as kernels/attention.h. Rows that no item names are untouched.
//   Pages    as in DevicePageLayout; elements in `dtype`, or in fp8 (fp8_pages.h), as kv_dtype says.
//   Chunks   the last `chunk_count` items, of any number of new tokens each; worth it for more than 8, and then needed. The items before them
//            are decodes, of at most 8 each. Each kind has its own kernel, schedule and bound (query_count_max, chunk_query_count_max).
//   Schedule units and blocks as schedule_decode made them of the same shape (cut included) and of the decodes and their lists, chunk_blocks as
//            schedule_prefill made them of the same shape and of the chunks and theirs. Empty for a kind that has no items; not read on the
//            general way.
//   Memory   workspace: decode_workspace_floats(), filled once by reset_decode_workspace(); each call leaves it as it found it. Calls that
//            may run at the same time need one each, and so with the scratch.
//            scratch: for chunks over fp8, which are widened into it, exactly, and need no chunk_blocks; any content.
//            decode_scratch_bytes() of as many streams (item and KV head) as shall be computed together; at least of one. Aligned to 128.
//   Async    queued on `stream`; buffers outlive the work queued there. May be captured in a graph.
//   Errors   std::invalid_argument where sizes disagree, the dtype is f32 over fp8, head_dim is not a multiple of 8 from 32 to 256,
//            scale is not finite and positive, or soft_cap negative; CudaError where the launch is refused. Nothing is written then.
//            What lies in device memory (items, lists, entries) cannot be checked.
//   Cost     one_pass: every visible KV row once: tokens * kv_heads * 2 * row bytes / memory bandwidth, and some 5 us. chunks:
//            4 * head_dim * query_heads for each visible pair of tokens / tensor cores, and some 10 us. Chunks come after decodes.
//   Numbers  f32 accumulation; weights are rounded to `dtype`, in decodes over fp8 to f16, before they meet V. NaN and infinity of a token
//            reach the rows that see it, and no others; in chunks, a NaN of V reaches all rows that share its tile. The same schedule gives
//            the same bits.
//   Waits    a block waits for partials of blocks of lower index, which the hardware has started before it, or of its cluster, which
//            starts as a whole. With `join`, blocks of its root wait for other ranks' kernels (peer_exchange.h says for how long), and hold
//            their SMs meanwhile: all blocks of all ranks on a GPU must have room at once.
//   Source   flash-decoding (split over KV, merge by log-sum-exp); partials carry their own flags, as in NCCL's LL protocol.
struct Decode {
    DecodeShape shape;
    Dtype dtype;
    KvDtype kv_dtype = KvDtype::as_model;
    float scale;
    float soft_cap = 0;
    int row_count;
    DeviceSlab slab;
    DeviceSpan<const DecodeItem> items;
    DeviceSpan<const PageList> lists;
    DeviceSpan<const PageEntry> entries;
    int kv_layer = 0;  // whose lists are read
    DeviceSpan<const DecodeUnit> units;
    DeviceSpan<const DecodeBlock> blocks;
    int chunk_count = 0;
    DeviceSpan<const PrefillBlock> chunk_blocks = {};
    DeviceSpan<const std::byte> q;
    DeviceSpan<std::byte> rounded;
    DeviceSpan<float> partial;
    DeviceSpan<float> lse;
    DeviceSpan<float> workspace;
    DeviceSpan<std::byte> scratch = {};
    int list_pages_max = 0;      // for the scratch: no page list has more
    bool deterministic = false;  // whether the schedules are; chunks over fp8 make theirs in here
    const PeerExchange* join =
        nullptr;  // decodes of can_join only: their rows go into this exchange; at its root partial and lse are scratch
    bool only_general = false;  // for comparisons: as if no other kernel were there
};
// The way of the decodes, or of the chunks where there are no decodes.
DecodePath decode(const Decode& work, Stream stream);

// Which way decodes of this shape go, and which way chunks.
DecodePath path_of(const DecodeShape& shape, Dtype dtype, KvDtype kv_dtype = KvDtype::as_model);
DecodePath chunk_path_of(const DecodeShape& shape, Dtype dtype, KvDtype kv_dtype = KvDtype::as_model);

// block_count: of the decodes' schedule; nothing where units have blocks of their own. With room for chunks if the shape has a chunk_query_count_max: some 40 MB.
std::size_t decode_workspace_floats(const DecodeShape& shape, int block_count);
// Whether decodes of this shape can join in their tail, where there are no chunks beside them: not the general way, and over fp8
// only rows of 96 and 128 dims, 8 at the most to a KV head.
bool can_join(const DecodeShape& shape, Dtype dtype, KvDtype kv_dtype);
std::size_t decode_scratch_bytes(const DecodeShape& shape, int list_pages_max, int stream_count);
void reset_decode_workspace(DeviceSpan<float> workspace, Stream stream);

}  // namespace kvgrid::kernels
