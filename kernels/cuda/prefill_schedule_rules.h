#pragma once

#include "kernels/cuda/decode_schedule_rules.h"
#include "kernels/cuda/prefill_schedule.h"

namespace kvgrid::kernels {

// The arithmetic of a schedule of chunks: pure functions that host and device share. Costs are pairs of pages.

// What a block costs besides its pages, and the least that is worth a block.
inline constexpr int kPartCost = 3;
inline constexpr int kPartPairsMin = 4;
// The most parts of a tile that are considered.
inline constexpr int kPartsMax = 128;

constexpr DecodeUnit prefill_unit(const PrefillBatch& batch, int stream, int tile) {
    const int kv_heads = batch.shape.heads.kv_heads;
    const PageList list = batch.lists.data[stream];
    return make_unit_of(batch.shape, DecodeShape::kChunkRows, batch.items.data[stream / kv_heads], list,
                        batch.entries.data + list.at_layer(batch.kv_layer),
                        {stream / kv_heads, stream % kv_heads, tile});
}

constexpr int pairs_of(int pages) {
    return (pages + 1) / 2;
}
constexpr int divided_up(int value, int by) {
    return (value + by - 1) / by;
}

struct PrefillTotals {
    std::int64_t pairs = 0;  // about
    std::int32_t tiles = 0;
    std::int32_t pairs_max = 0;
};

// The oldest tile sees the fewest pages and the newest the most; those between lie on a line, as far as a cost needs to know.
constexpr PrefillStream make_stream(const PrefillBatch& batch, int stream, std::int64_t& pairs_sum) {
    const int rows = batch.items.data[stream / batch.shape.heads.kv_heads].query_count * batch.shape.heads.group();
    PrefillStream made{};
    made.tile_count = divided_up(rows, DecodeShape::kChunkRows);
    pairs_sum = 0;
    if (made.tile_count == 0) return made;
    const int newest = pairs_of(prefill_unit(batch, stream, made.tile_count - 1).page_count);
    const int oldest = pairs_of(prefill_unit(batch, stream, 0).page_count);
    made.pairs_max = newest > oldest ? newest : oldest;
    pairs_sum = std::int64_t{newest + oldest} * made.tile_count / 2;
    return made;
}

constexpr int part_pairs_of(int pairs_max, int part_count) {
    const int pairs = divided_up(pairs_max, part_count);
    return pairs < kPartPairsMin ? kPartPairsMin : pairs;
}
// At least one: rows that see nothing are written, too.
constexpr int part_count_of(int pairs, int part_pairs) {
    return pairs <= part_pairs ? 1 : divided_up(pairs, part_pairs);
}
constexpr std::int64_t blocks_of_stream(const PrefillStream& stream, int part_pairs) {
    return std::int64_t{stream.tile_count} * part_count_of(stream.pairs_max, part_pairs);
}

// How long so many blocks of at most so many pairs take at most, times the SMs; two bounds hold.
constexpr std::int64_t prefill_cost(const PrefillTotals& totals, int part_pairs, std::int64_t block_count, int sms) {
    const std::int64_t longest = part_pairs + kPartCost;
    const std::int64_t by_sum = totals.pairs + kPartCost * block_count + longest * sms;
    const std::int64_t by_waves = (block_count + sms - 1) / sms * sms * longest;
    return by_sum < by_waves ? by_sum : by_waves;
}

// Worth cutting: a twentieth less, and few enough blocks.
constexpr bool is_worth_cutting(std::int64_t cost, std::int64_t whole_cost, std::int64_t block_count) {
    return block_count <= kPrefillCutBlocks && cost + whole_cost / 20 < whole_cost;
}

// Block `block` of the call: of the stream that holds it, by blocks_before.
constexpr PrefillBlock make_prefill_block(const PrefillBatch& batch, const PrefillStream* streams, int part_pairs,
                                          int block) {
    PrefillBlock made{};
    const int stream_count = batch.stream_count();
    if (block >= streams[stream_count].blocks_before) return made;
    int begin = 0, end = stream_count;  // blocks_before of begin <= block < that of end
    while (end - begin > 1) {
        const int middle = begin + (end - begin) / 2;
        (streams[middle].blocks_before <= block ? begin : end) = middle;
    }
    const int tiles = streams[begin].tile_count, in_stream = block - streams[begin].blocks_before;
    const int part = in_stream / tiles;
    const DecodeUnit unit = prefill_unit(batch, begin, tiles - 1 - in_stream % tiles);
    const int pairs = pairs_of(unit.page_count), parts_max = part_count_of(streams[begin].pairs_max, part_pairs);
    int part_count = part_count_of(pairs, part_pairs);
    if (part_count > parts_max) part_count = parts_max;  // a window's pages are one more here and there
    if (part >= part_count) return made;
    made.unit = unit;
    made.part = part;
    made.part_count = part_count;
    made.first_page = static_cast<int>(std::int64_t{part} * pairs / part_count) * 2;
    made.end_page = static_cast<int>(std::int64_t{part + 1} * pairs / part_count) * 2;
    if (made.end_page > unit.page_count) made.end_page = unit.page_count;
    made.first_slot = block - part * tiles;
    made.part_slots = tiles;
    made.group_parts = group_parts_of(part_count);
    return made;
}

}  // namespace kvgrid::kernels
