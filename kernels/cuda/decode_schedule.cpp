#include "kernels/cuda/decode_schedule.h"

#include <algorithm>

#include "kernels/cuda/decode_schedule_rules.h"

namespace kvgrid::kernels {

DecodeSchedule plan_decode(const DecodeBatch& batch, int block_count) {
    const int unit_count = batch.unit_count();
    const UnitCut& cut = batch.shape.cut;
    DecodeSchedule schedule;
    std::int64_t page_count = 0;
    for (int index = 0; index < unit_count; ++index) {
        const UnitPlace place = place_of_unit(batch.shape, index);
        const PageList list = batch.lists[place.item * batch.shape.heads.kv_heads + place.kv_head];
        const PageEntry* const entries = batch.entries.data() + list.at_layer(batch.kv_layer);
        schedule.units.push_back(make_unit(batch.shape, batch.items[place.item], list, entries, place));
        page_count += schedule.units.back().page_count;
    }
    const int unit_cost = unit_cost_of(page_count, block_count);
    std::vector<std::int32_t> cost_before = {0};
    for (const DecodeUnit& unit : schedule.units) {
        const int cost = batch.deterministic ? fixed_cost_of(unit) : cost_of(unit, unit_cost);
        cost_before.push_back(cost_before.back() + cost);
    }
    const CostSums sums{cost_before.data(), unit_count, unit_cost};
    for (int block = 0; block < block_count; ++block) {
        const DecodeUnit* const units = schedule.units.data();
        schedule.blocks.push_back(cut.gives_units_blocks() ? make_own_block(units, block, cut.parts)
                                  : batch.deterministic ? make_fixed_block(cost_before.data(), unit_count, units, block)
                                                        : make_block(sums, units, block, block_count));
    }
    return schedule;
}

UnitCut best_cut_of(const DecodeShape& shape, const DecodeLoad& load) {
    const std::int64_t sms = load.multiprocessor_count;
    if (shape.unit_rows() > kRowsMaxOfOwnBlocks || load.unit_count == 0) return {};
    if (load.unit_count > sms) {
        constexpr int kSmallBlockPages = 16;
        return load.pages_max <= kSmallBlockPages ? UnitCut{UnitCut::Kind::small_blocks, 1} : UnitCut{};
    }
    // As many parts as can be resident together: clusters lie within groups of some 16 SMs, so that large ones leave gaps.
    const auto fits = [&](int parts) { return load.unit_count * parts <= (parts <= 2 ? sms : sms * 7 / 8); };
    int parts = UnitCut::kPartsMax;
    while (parts > 1 && !fits(parts)) parts /= 2;
    // What a page of a block takes, beside one when all SMs read: memory is the bound from nine tenths of the SMs on.
    const double busy = static_cast<double>(load.unit_count * parts) / static_cast<double>(sms);
    const double page = busy >= 0.9 ? busy : (1 + 2 * busy) / 3;
    const double own = page * static_cast<double>((load.pages_max + parts - 1) / parts);
    constexpr double kMergeBytes = 64 << 10;  // what merging through memory takes, 2 us, as reading
    const double ranges = static_cast<double>(load.page_count) / static_cast<double>(sms) +
                          kMergeBytes / static_cast<double>(load.page_bytes);
    return own <= ranges ? UnitCut{UnitCut::Kind::clusters, parts} : UnitCut{};
}

double imbalance_of(const UnitCut& cut, const DecodeLoad& load) {
    if (load.page_count == 0) return 1;
    const std::int64_t sms = load.multiprocessor_count;
    const double mean = static_cast<double>(load.page_count) / sms;
    switch (cut.kind) {
        case UnitCut::Kind::clusters:
            return (load.pages_max + cut.parts - 1) / cut.parts / mean;
        case UnitCut::Kind::small_blocks:  // SMs take the next block when one ends
            return std::max<double>(load.pages_max, mean) / mean;
        case UnitCut::Kind::ranges:
            break;
    }
    const std::int64_t cost =
        load.page_count + load.unit_count * unit_cost_of(load.page_count, load.multiprocessor_count);
    const std::int64_t used = std::min(cost, sms);
    return static_cast<double>((cost + used - 1) / used * sms) / static_cast<double>(cost);
}

}  // namespace kvgrid::kernels
