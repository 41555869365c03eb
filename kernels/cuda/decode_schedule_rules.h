#pragma once

#include "kernels/cuda/decode_schedule.h"

namespace kvgrid::kernels {

// The arithmetic of a schedule: pure functions that host and device share.

// The first index of [begin, end) whose entry is not below the bound: first_token + reach < bound. Pages mostly lie evenly, so it looks where
// the entry would be then before it halves what is left.
constexpr int first_at_or_after(const PageEntry* entries, int begin, int end, std::int64_t bound, int reach) {
    const std::int64_t below = bound - reach;  // the answer's first_token is not
    if (end - begin > 2) {
        const std::int64_t first = entries[begin].first_token, last = entries[end - 1].first_token;
        if (first >= below) return begin;
        if (last < below) return end;
        const int guess =
            begin + static_cast<int>((below - first + kPageTokens - 1) * (end - 1 - begin) / (last - first));
        const int inside = guess < begin + 1 ? begin + 1 : (guess > end - 1 ? end - 1 : guess);
        const bool is_low = entries[inside].first_token < below,
                   is_low_before = entries[inside - 1].first_token < below;
        if (is_low) {
            begin = inside + 1;
        } else if (is_low_before) {
            return inside;
        } else {
            end = inside - 1;
        }
    }
    while (begin < end) {
        const int middle = begin + (end - begin) / 2;
        if (entries[middle].first_token < below) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

// Fills in the pages of the list that hold anything visible to the queries from `oldest` to `newest`.
constexpr void set_visible_pages(DecodeUnit& unit, const PageEntry* list, int list_count, std::int64_t newest_end) {
    int end = list_count;
    if (list_count > 0 && list[list_count - 1].first_token >= newest_end) {
        end = first_at_or_after(list, 0, list_count, newest_end, 0);
    }
    const std::int64_t oldest_first = unit.window == 0 ? 0 : unit.first_query - unit.window + 1;
    unit.first_page = oldest_first <= 0 ? 0 : first_at_or_after(list, 0, end, oldest_first + 1, kPageTokens);
    unit.sink_pages = unit.first_page == 0 ? 0 : first_at_or_after(list, 0, unit.first_page, unit.sinks, 0);
    unit.page_count = unit.sink_pages + end - unit.first_page;
}

struct UnitPlace {
    int item, kv_head, tile;
};
constexpr UnitPlace place_of_unit(const DecodeShape& shape, int unit) {
    const int per_stream = shape.units_per_stream();
    const int stream = unit / per_stream;
    return {stream / shape.heads.kv_heads, stream % shape.heads.kv_heads, unit % per_stream};
}

// Unit `place.tile` of those of unit_rows rows each, by the list of one KV layer.
constexpr DecodeUnit make_unit_of(const DecodeShape& shape, int unit_rows, const DecodeItem& item, const PageList& list,
                                  const PageEntry* entries_of_list, const UnitPlace& place) {
    const int group = shape.heads.group();
    const int first_row = place.tile * unit_rows;
    const int rows = item.query_count * group - first_row;
    DecodeUnit unit{};
    unit.row_count = rows < 0 ? 0 : (rows < unit_rows ? rows : unit_rows);
    if (unit.row_count == 0) return unit;
    unit.first_query = item.first_query + first_row / group;
    unit.window = item.window;
    unit.sinks = item.sinks;
    unit.list = list.first;
    unit.layer_stride = list.layer_stride;
    unit.kv_head = place.kv_head;
    unit.query_row = item.first_row + first_row / group;
    unit.first_head = first_row % group;
    const std::int64_t newest = unit.first_query + (unit.first_head + unit.row_count - 1) / group;
    set_visible_pages(unit, entries_of_list, list.count, shape.strictly_earlier ? newest : newest + 1);
    return unit;
}

constexpr DecodeUnit make_unit(const DecodeShape& shape, const DecodeItem& item, const PageList& list,
                               const PageEntry* entries_of_list, const UnitPlace& place) {
    return make_unit_of(shape, shape.unit_rows(), item, list, entries_of_list, place);
}

constexpr int unit_cost_of(std::int64_t page_count, int block_count) {
    return page_count <= std::int64_t{kFewPagesPerBlock} * block_count ? 0 : kUnitCost;
}

// A unit that sees nothing still has rows to be written.
constexpr int cost_of(const DecodeUnit& unit, int unit_cost) {
    if (unit.row_count == 0) return 0;
    const int cost = unit.page_count + unit_cost;
    return cost > 0 ? cost : 1;
}

// What counts as a unit's cost in a deterministic schedule: its blocks.
constexpr int fixed_cost_of(const DecodeUnit& unit) {
    return unit.row_count == 0 ? 0 : fixed_part_count(unit.page_count);
}

// Where block `block` of `used` begins, in costs of `total`.
constexpr std::int64_t cut(int block, int used, int total) {
    return static_cast<std::int64_t>(block) * total / used;
}

// The unit that holds a cost, by the sums of costs before each unit.
constexpr int unit_at(const std::int32_t* cost_before, int unit_count, std::int64_t cost) {
    int begin = 0, end = unit_count;  // cost_before[begin] <= cost < cost_before[end]
    while (end - begin > 1) {
        const int middle = begin + (end - begin) / 2;
        if (cost_before[middle] <= cost) {
            begin = middle;
        } else {
            end = middle;
        }
    }
    return begin;
}

struct CostSums {
    const std::int32_t* before;  // [unit_count + 1]
    int unit_count;
    int unit_cost;

    constexpr int total() const { return before[unit_count]; }
};

struct UnitPage {
    int unit, page;
};
// A cut within the cost of the unit itself moves to its first page.
constexpr UnitPage place_of_cut(const CostSums& sums, std::int64_t cost) {
    const int unit = unit_at(sums.before, sums.unit_count, cost);
    const std::int64_t page = cost - sums.before[unit] - sums.unit_cost;
    return {unit, page < 0 ? 0 : static_cast<int>(page)};
}

// The blocks that have work: then no two cuts fall on the same page.
constexpr int used_blocks(const CostSums& sums, int block_count) {
    return sums.total() < block_count ? sums.total() : block_count;
}

// The last block that begins at or before a cost.
constexpr int block_of_cost(const CostSums& sums, int used, std::int64_t cost) {
    return static_cast<int>(((cost + 1) * used - 1) / sums.total());
}

// Partials of a unit in many blocks are merged in two steps, each of about as many: what one SM reads in one go bounds the time. Up to
// this many, one step is faster.
inline constexpr int kGroupPartsMin = 4;
constexpr int group_parts_of(int part_count) {
    int parts = kGroupPartsMin;
    while (parts * parts < part_count) ++parts;
    return parts;
}

constexpr DecodeBlock make_block(const CostSums& sums, const DecodeUnit* units, int block, int block_count) {
    const int used = used_blocks(sums, block_count);
    DecodeBlock made{};
    made.unit = made.end_unit = sums.unit_count;
    if (block >= used) return made;
    const UnitPage begin = place_of_cut(sums, cut(block, used, sums.total()));
    made.unit = begin.unit;
    made.page = begin.page;
    made.first = units[begin.unit];
    made.first_part = block;
    made.group_parts = kGroupPartsMin;
    if (begin.page > 0) {
        const std::int64_t first_page_cost = sums.before[begin.unit] + sums.unit_cost;
        const int last_part = block_of_cost(sums, used, first_page_cost + made.first.page_count - 1);
        made.first_part = block_of_cost(sums, used, first_page_cost);
        made.group_parts = group_parts_of(last_part - made.first_part + 1);
    }
    if (block + 1 < used) {
        const UnitPage end = place_of_cut(sums, cut(block + 1, used, sums.total()));
        made.end_unit = end.unit;
        made.end_page = end.page;
    }
    return made;
}

// Where units have blocks of their own, so many each.
constexpr DecodeBlock make_own_block(const DecodeUnit* units, int block, int parts) {
    DecodeBlock made{};
    const int part = block % parts;
    made.unit = made.end_unit = block / parts;
    made.first = units[made.unit];
    made.page = part * made.first.page_count / parts;
    made.end_page = (part + 1) * made.first.page_count / parts;
    return made;
}

// Block `block` of a deterministic schedule; `before` are sums of fixed_cost_of.
constexpr DecodeBlock make_fixed_block(const std::int32_t* before, int unit_count, const DecodeUnit* units, int block) {
    DecodeBlock made{};
    made.unit = made.end_unit = unit_count;
    if (block >= before[unit_count]) return made;
    const int unit = unit_at(before, unit_count, block), part = block - before[unit];
    const int part_count = fixed_part_count(units[unit].page_count);
    const bool is_last = part == part_count - 1;
    made.unit = unit;
    made.page = part * kFixedPartPages;
    made.end_unit = is_last ? unit + 1 : unit;
    made.end_page = is_last ? 0 : (part + 1) * kFixedPartPages;
    made.first_part = before[unit];
    made.group_parts = group_parts_of(part_count);
    made.first = units[unit];
    return made;
}

}  // namespace kvgrid::kernels
