#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/decode_schedule.h"
#include "kernels/cuda/device_span.h"

namespace kvgrid::kernels {

// How the chunks of one decode call are divided over the blocks of a GPU. Made once per step and good for every layer whose page lists have
// the same lengths, order numbers and token counts.
//
//   tile    128 rows (new token, query head of a group) of one item and KV head: a unit
//   part    a range of a tile's visible pages. Tiles are cut only where there are too few for all SMs: all at about the same pages, so that
//           neighbours read the same ones at the same time
//   block   one part of one tile. Blocks of a stream are neighbours: all tiles' first parts, the newest tile first, then all second parts
//
//   The last part of a tile merges what the others hand over, and finishes its rows: a block waits only for blocks of lower index.
struct alignas(16) PrefillBlock {
    DecodeUnit unit;                    // row_count 0: there is nothing to do
    std::int32_t first_page, end_page;  // of the unit's visible pages
    std::int32_t part, part_count;
    std::int32_t first_slot, part_slots;  // where part 0 hands over, and how much further each next part
    std::int32_t group_parts;             // how many parts merge into one before the last one merges all
    std::int32_t reserved;

    constexpr bool is_last_part() const { return part == part_count - 1; }
    constexpr int slot_of(int other_part) const { return first_slot + other_part * part_slots; }
    // In steps of so many pages.
    constexpr int step_count(int step_pages) const { return (end_page - first_page + step_pages - 1) / step_pages; }
};

// One item's chunk over one KV head.
struct alignas(16) PrefillStream {
    std::int32_t tile_count;
    std::int32_t pairs_max;      // of visible pages, of any tile
    std::int32_t blocks_before;  // of the streams before
    std::int32_t reserved;
};

// Tiles are cut into no more blocks than this, all together, and slots exist for so many: four for each SM of an H100 or H200.
inline constexpr int kPrefillCutBlocks = 4 * 132;

// The chunks of a call: of `shape`, heads, chunk_query_count_max and strictly_earlier matter.
struct PrefillBatch {
    DecodeShape shape;
    DeviceSpan<const DecodeItem> items;
    DeviceSpan<const PageList> lists;  // [item][kv_head]
    DeviceSpan<const PageEntry> entries;
    int kv_layer = 0;  // whose lists are looked at
    int multiprocessor_count;
    bool deterministic = false;  // tiles are never cut: whether they are depends on the whole batch

    constexpr int stream_count() const { return static_cast<int>(items.size) * shape.heads.kv_heads; }
};

// How many blocks a schedule of so many items needs room for; those that are not needed do nothing.
constexpr int prefill_block_count(const DecodeShape& shape, int item_count) {
    const int tiles = item_count * shape.heads.kv_heads * shape.chunks_per_stream();
    return tiles < kPrefillCutBlocks ? kPrefillCutBlocks : tiles;
}
constexpr std::size_t prefill_slot_floats(int head_dim) {
    return std::size_t{DecodeShape::kChunkRows} * (head_dim + 8);
}

// On the host; the batch's spans are host memory.
std::vector<PrefillBlock> plan_prefill(const PrefillBatch& batch);

// The same on the device.
//
//   Shapes  blocks   [prefill_block_count()]
//           streams  [items * kv_heads + 1], scratch
//   Async   queued on `stream`; one launch of one block.
//   Errors  std::invalid_argument where sizes disagree; CudaError where the launch is refused.
//   Cost    some us up to a thousand blocks; two searches through each page list, and two for each block.
struct SchedulePrefill {
    PrefillBatch batch;
    DeviceSpan<PrefillBlock> blocks;
    DeviceSpan<PrefillStream> streams;
};
void schedule_prefill(const SchedulePrefill& work, Stream stream);

}  // namespace kvgrid::kernels
