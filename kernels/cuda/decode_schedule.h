#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "core/page_tokens.h"
#include "kernels/cuda/device_span.h"
#include "kernels/head_shape.h"
#include "kernels/page_entry.h"

namespace kvgrid::kernels {

// How one decode call is divided over the blocks of a GPU. Made once per step and good for every layer whose page lists have the same
// lengths and order numbers.
//
//   row    (new token, query head of a group) of one item and KV head, counted token by token
//   unit   up to 8, 16 or 32 consecutive rows, which read their stream's visible pages together
//   block  what one SM does: a range of pages, cut out of all units' pages laid end to end, so that all blocks cost the same
//
//      unit 0            unit 1      unit 2
//      [pages...........][pages.....][pages....]
//      | block 0 | block 1 | block 2 | block 3 |     block 1 ends unit 0 and begins unit 1
//
//   A unit whose pages end in a block is finished by that block (it merges); every other block that has pages of the unit hands over
//   a partial outcome, and the unit is then the last thing that it does. So a block hands over at most one partial, keeps at most one,
//   and waits only for blocks of lower index.
//
//   Clusters, small blocks: where streams are short, merging through memory and the ends of units cost more than uneven blocks. Then every
//   unit has blocks of its own: a cluster of them, which has its pages in even parts and merges within itself; or, where units are many, one
//   block that is small enough for several of them on an SM, which cover for each other's beginnings and ends.
//
//   Deterministic: every unit is cut after each kFixedPartPages of its own pages instead, one block for each part, whatever else is in the
//   batch. Then a row's bits depend on nothing but its own sequence, at the price of some balance.
inline constexpr int kFixedPartPages = 32;

// What one sequence of the batch asks for; as AttentionItem, in a form that a device reads.
struct DecodeItem {
    std::int64_t first_query;  // order number, in the sequence, of the first new token
    std::int64_t window;       // tokens that a query sees, itself included; 0: all
    std::int64_t sinks;        // first tokens that stay visible in spite of the window
    std::int32_t query_count;  // new tokens, >= 0
    std::int32_t first_row;    // row of the first new token in q and in the outputs
};

// Where the page lists of a stream's KV head lie among the entries of all lists: that of KV layer l begins at first + l * layer_stride.
struct PageList {
    std::int32_t first;
    std::int32_t count;             // the same in all layers that share a schedule
    std::int32_t layer_stride = 0;  // 0: there is one layer

    constexpr int at_layer(int kv_layer) const { return first + kv_layer * layer_stride; }
};

// More new tokens of one sequence are a chunk, with kernels of its own: far more arithmetic than a page's bytes pay for here.
inline constexpr int kDecodeQueriesMax = 8;

// How units are cut over blocks; best_cut_of says which is best.
struct UnitCut {
    enum class Kind : std::int32_t { ranges, clusters, small_blocks };
    Kind kind = Kind::ranges;
    std::int32_t parts = 1;  // blocks of a unit, in a cluster

    static constexpr int kPartsMax = 8;  // that a cluster can have on every such GPU

    constexpr bool gives_units_blocks() const { return kind != Kind::ranges; }
    constexpr bool is_sound() const { return parts >= 1 && parts <= (kind == Kind::clusters ? kPartsMax : 1); }
    auto operator<=>(const UnitCut&) const = default;
};
inline constexpr int kRowsMaxOfOwnBlocks = 16;  // of a unit, where it has blocks of its own

struct DecodeShape {
    HeadShape heads;
    int query_count_max;  // the most new tokens of any item that is no chunk
    bool strictly_earlier = false;
    int chunk_query_count_max = 0;  // of any that is: prefill_schedule.h
    UnitCut cut = {};

    constexpr int rows_max() const { return query_count_max * heads.group(); }
    // Large heads leave no registers for more than 16 rows.
    constexpr int unit_rows() const {
        return rows_max() <= 8 ? 8 : (rows_max() <= 16 || heads.head_dim > 128 ? 16 : 32);
    }
    constexpr int units_per_stream() const { return (rows_max() + unit_rows() - 1) / unit_rows(); }

    static constexpr int kChunkRows = 128;
    constexpr int chunks_per_stream() const {
        return (chunk_query_count_max * heads.group() + kChunkRows - 1) / kChunkRows;
    }
};

// What a batch of decodes asks for, as far as it decides how units are cut.
struct DecodeLoad {
    std::int64_t unit_count;
    std::int64_t page_count;  // of all units
    int pages_max;            // of any unit
    std::size_t page_bytes;
    int multiprocessor_count;
};
// By what was measured on an H200; not for deterministic schedules, which have ranges.
UnitCut best_cut_of(const DecodeShape& shape, const DecodeLoad& load);
// The most pages that an SM has over the mean of all, idle ones too; 1 at best.
double imbalance_of(const UnitCut& cut, const DecodeLoad& load);
// Blocks of the schedule; one for each SM where units have none of their own.
constexpr std::int64_t block_count_of(const UnitCut& cut, std::int64_t unit_count, int multiprocessor_count) {
    return cut.gives_units_blocks() ? unit_count * cut.parts : multiprocessor_count;
}

struct alignas(16) DecodeUnit {
    std::int32_t list;        // the stream's first entry in KV layer 0
    std::int32_t sink_pages;  // visible pages of the list: [0, sink_pages), then from first_page on
    std::int32_t first_page;
    std::int32_t page_count;  // visible pages
    std::int32_t kv_head;
    std::int32_t query_row;    // row in q of the query of the unit's first row
    std::int32_t first_head;   // the first row's head within the group
    std::int32_t row_count;    // 0: nothing to do
    std::int64_t first_query;  // order number of the query of the unit's first row
    std::int64_t window;
    std::int64_t sinks;
    std::int32_t layer_stride;
    std::int32_t reserved;

    constexpr int page_at(int position, int kv_layer) const {
        return list + kv_layer * layer_stride + (position < sink_pages ? position : first_page + position - sink_pages);
    }
};

// Pages [page, ...) of unit `unit`, then whole units, then pages [0, end_page) of `end_unit`. Empty where begin and end are equal.
struct alignas(16) DecodeBlock {
    std::int32_t unit, page;
    std::int32_t end_unit, end_page;
    std::int32_t first_part;   // if page > 0: the first block that has pages of `unit`,
    std::int32_t group_parts;  // and how many blocks of it merge into one before the last one merges all
    std::int32_t reserved[2];
    DecodeUnit first;  // a copy of `unit`, so that a block starts with one load
};

// What a unit costs besides its pages, in pages; but nothing where blocks have few pages each: then only the longest block counts, and
// what units cost besides is waiting that others do not wait for.
inline constexpr int kUnitCost = 2;
inline constexpr int kFewPagesPerBlock = 8;

struct DecodeBatch {
    DecodeShape shape;
    std::span<const DecodeItem> items;
    std::span<const PageList> lists;  // [item][kv_head]
    std::span<const PageEntry> entries;
    int kv_layer = 0;  // whose lists are looked at
    bool deterministic = false;

    int unit_count() const { return static_cast<int>(items.size()) * shape.heads.kv_heads * shape.units_per_stream(); }
};

struct DecodeSchedule {
    std::vector<DecodeUnit> units;
    std::vector<DecodeBlock> blocks;
};
// Blocks that a unit of so many pages needs in a deterministic schedule; units without pages have rows to be written, too.
constexpr int fixed_part_count(int page_count) {
    return page_count <= kFixedPartPages ? 1 : (page_count + kFixedPartPages - 1) / kFixedPartPages;
}

// On the host: for tests, and where the lists are there anyway.
DecodeSchedule plan_decode(const DecodeBatch& batch, int block_count);

// The same on the device.
//
//   Shapes  units        [item_count * kv_heads * shape.units_per_stream()]
//           blocks       [block_count_of the cut]; deterministic: at least fixed_part_count of every unit, together
//           cost_before  [units + 1], scratch
//   Rule    lists do not overlap among the entries.
//   Async   queued on `stream`; one launch of one block.
//   Errors  std::invalid_argument where sizes disagree; CudaError where the launch is refused.
//   Cost    a few us up to some thousand units; a search through the page list for each unit with a window.
struct ScheduleDecode {
    DecodeShape shape;
    DeviceSpan<const DecodeItem> items;
    DeviceSpan<const PageList> lists;
    DeviceSpan<const PageEntry> entries;
    DeviceSpan<DecodeUnit> units;
    DeviceSpan<DecodeBlock> blocks;
    DeviceSpan<std::int32_t> cost_before;
    int kv_layer = 0;  // whose lists are looked at
    bool deterministic = false;
};
void schedule_decode(const ScheduleDecode& work, Stream stream);

}  // namespace kvgrid::kernels
