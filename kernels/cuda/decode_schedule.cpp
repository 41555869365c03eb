#include "kernels/cuda/decode_schedule.h"

#include "kernels/cuda/decode_schedule_rules.h"

namespace kvgrid::kernels {

DecodeSchedule plan_decode(const DecodeBatch& batch, int block_count) {
    const int unit_count = batch.unit_count();
    DecodeSchedule schedule;
    std::vector<std::int32_t> cost_before = {0};
    for (int index = 0; index < unit_count; ++index) {
        const UnitPlace place = place_of_unit(batch.shape, index);
        const PageList list = batch.lists[place.item * batch.shape.heads.kv_heads + place.kv_head];
        schedule.units.push_back(make_unit(batch.shape, batch.items[place.item], list, batch.entries.data(), place));
        cost_before.push_back(cost_before.back() + cost_of(schedule.units.back()));
    }
    const CostSums sums{cost_before.data(), unit_count};
    for (int block = 0; block < block_count; ++block) {
        schedule.blocks.push_back(make_block(sums, schedule.units.data(), block, block_count));
    }
    return schedule;
}

}  // namespace kvgrid::kernels
