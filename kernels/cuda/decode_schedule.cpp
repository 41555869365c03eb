#include "kernels/cuda/decode_schedule.h"

#include "kernels/cuda/decode_schedule_rules.h"

namespace kvgrid::kernels {

DecodeSchedule plan_decode(const DecodeBatch& batch, int block_count) {
    const int unit_count = batch.unit_count();
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
        schedule.blocks.push_back(batch.deterministic
                                      ? make_fixed_block(cost_before.data(), unit_count, schedule.units.data(), block)
                                      : make_block(sums, schedule.units.data(), block, block_count));
    }
    return schedule;
}

}  // namespace kvgrid::kernels
