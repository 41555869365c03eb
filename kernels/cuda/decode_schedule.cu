#include <stdexcept>
#include <string>

#include "kernels/cuda/block_sums.cuh"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_schedule.h"
#include "kernels/cuda/decode_schedule_rules.h"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;

__global__ __launch_bounds__(kThreads, 1) void make_schedule(const __grid_constant__ ScheduleDecode work) {
    __shared__ int warp_sums[kWarps];
    __shared__ int total;
    __shared__ unsigned long long page_count;
    const int unit_count = static_cast<int>(work.units.size);
    const int block_count = static_cast<int>(work.blocks.size);
    const UnitCut cut = work.shape.cut;
    if (threadIdx.x == 0) {
        total = 0;
        page_count = 0;
        work.cost_before.data[0] = 0;
    }
    __syncthreads();
    unsigned long long own_pages = 0;
    for (int index = threadIdx.x; index < unit_count; index += kThreads) {
        const UnitPlace place = place_of_unit(work.shape, index);
        const PageList list = work.lists.data[place.item * work.shape.heads.kv_heads + place.kv_head];
        const PageEntry* const entries = work.entries.data + list.at_layer(work.kv_layer);
        const DecodeUnit unit = make_unit(work.shape, work.items.data[place.item], list, entries, place);
        work.units.data[index] = unit;
        own_pages += unit.page_count;
    }
    for (int distance = 16; distance > 0; distance /= 2) own_pages += __shfl_xor_sync(~0u, own_pages, distance);
    if (threadIdx.x % 32 == 0) atomicAdd(&page_count, own_pages);
    __syncthreads();
    const int unit_cost = unit_cost_of(static_cast<std::int64_t>(page_count), block_count);
    for (int first = 0; first < unit_count; first += kThreads) {
        const int index = first + static_cast<int>(threadIdx.x);
        const int before = total;
        int cost = 0;
        if (index < unit_count) {
            const DecodeUnit& unit = work.units.data[index];
            cost = work.deterministic ? fixed_cost_of(unit) : cost_of(unit, unit_cost);
        }
        const int sum = before + sum_up_to(cost, warp_sums);
        if (index < unit_count) work.cost_before.data[index + 1] = sum;
        if (threadIdx.x == kThreads - 1) total = sum;
        __syncthreads();
    }
    const CostSums sums{work.cost_before.data, unit_count, unit_cost};
    for (int block = threadIdx.x; block < block_count; block += kThreads) {
        work.blocks.data[block] = cut.gives_units_blocks() ? make_own_block(work.units.data, block, cut.parts)
                                  : work.deterministic
                                      ? make_fixed_block(work.cost_before.data, unit_count, work.units.data, block)
                                      : make_block(sums, work.units.data, block, block_count);
    }
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("schedule_decode: ") + rule);
}

void check_schedule(const ScheduleDecode& work) {
    const HeadShape& heads = work.shape.heads;
    require(heads.kv_heads >= 1 && heads.query_heads >= heads.kv_heads && heads.query_heads % heads.kv_heads == 0,
            "query_heads must be a positive multiple of kv_heads");
    require(work.shape.query_count_max >= 1, "query_count_max must be positive");
    require(work.lists.size == work.items.size * heads.kv_heads, "there must be kv_heads lists for each item");
    require(work.units.size == work.lists.size * work.shape.units_per_stream(),
            "units must be [items * kv_heads * units_per_stream]");
    require(work.cost_before.size == work.units.size + 1, "cost_before must be [units + 1]");
    require(work.blocks.size >= 1, "there must be a block");
    const UnitCut& cut = work.shape.cut;
    require(cut.is_sound(), "a unit must have 1 to 8 blocks in a cluster, or 1 small block");
    require(!cut.gives_units_blocks() || work.blocks.size == work.units.size * cut.parts,
            "blocks must be [units * parts] where units have their own");
    require(!cut.gives_units_blocks() || !work.deterministic, "a deterministic schedule has ranges");
    // Costs are summed in 32 bits.
    const std::size_t cost_max = (work.entries.size + kUnitCost * work.lists.size) * work.shape.units_per_stream();
    require(cost_max < (std::size_t{1} << 31), "more pages than 2^31 in all units together");
}

}  // namespace

void schedule_decode(const ScheduleDecode& work, Stream stream) {
    check_schedule(work);
    make_schedule<<<1, kThreads, 0, stream>>>(work);
    check_launch("make_schedule");
}

}  // namespace kvgrid::kernels
