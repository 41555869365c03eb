#include <stdexcept>
#include <string>

#include "kernels/cuda/block_sums.cuh"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/prefill_schedule.h"
#include "kernels/cuda/prefill_schedule_rules.h"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 1024;

struct ScheduleShared {
    unsigned long long pairs;
    unsigned long long best;  // cost, then parts
    int tiles, pairs_max, block_count;
    int warp_sums[kThreads / 32];

    __device__ PrefillTotals totals() const { return {static_cast<std::int64_t>(pairs), tiles, pairs_max}; }
};

__device__ void make_streams(const SchedulePrefill& work, ScheduleShared& shared) {
    for (int index = threadIdx.x; index < work.batch.stream_count(); index += kThreads) {
        std::int64_t pairs_sum = 0;
        const PrefillStream stream = make_stream(work.batch, index, pairs_sum);
        work.streams.data[index] = stream;
        atomicAdd(&shared.pairs, static_cast<unsigned long long>(pairs_sum));
        atomicAdd(&shared.tiles, stream.tile_count);
        atomicMax(&shared.pairs_max, stream.pairs_max);
    }
    __syncthreads();
}

// Each thread looks at one number of parts; the cheapest wins, then the fewest parts.
__device__ int choose_part_pairs(const SchedulePrefill& work, ScheduleShared& shared) {
    const PrefillTotals totals = shared.totals();
    const int sms = work.batch.multiprocessor_count, parts = static_cast<int>(threadIdx.x) + 1;
    const int whole = totals.pairs_max < kPartPairsMin ? kPartPairsMin : totals.pairs_max;
    const std::int64_t whole_cost = prefill_cost(totals, whole, totals.tiles, sms);
    if (!work.batch.deterministic && parts > 1 && parts <= kPartsMax && totals.tiles <= kPrefillCutBlocks) {
        const int part_pairs = part_pairs_of(totals.pairs_max, parts);
        std::int64_t block_count = 0;
        for (int index = 0; index < work.batch.stream_count(); ++index) {
            block_count += blocks_of_stream(work.streams.data[index], part_pairs);
        }
        const std::int64_t cost = prefill_cost(totals, part_pairs, block_count, sms);
        if (is_worth_cutting(cost, whole_cost, block_count)) {
            atomicMin(&shared.best, static_cast<unsigned long long>(cost) << 8 | parts);
        }
    }
    __syncthreads();
    const int best_parts = static_cast<int>(shared.best & 0xff);
    return shared.best == ~0ull ? whole : part_pairs_of(totals.pairs_max, best_parts);
}

__device__ void count_blocks_before(const SchedulePrefill& work, ScheduleShared& shared, int part_pairs) {
    const int stream_count = work.batch.stream_count();
    for (int first = 0; first <= stream_count; first += kThreads) {
        const int index = first + static_cast<int>(threadIdx.x), before = shared.block_count;
        const int blocks =
            index < stream_count ? static_cast<int>(blocks_of_stream(work.streams.data[index], part_pairs)) : 0;
        const int sum = before + sum_up_to(blocks, shared.warp_sums);
        if (index <= stream_count) work.streams.data[index].blocks_before = sum - blocks;
        if (threadIdx.x == kThreads - 1) shared.block_count = sum;
        __syncthreads();
    }
}

__global__ __launch_bounds__(kThreads, 1) void make_prefill_schedule(const __grid_constant__ SchedulePrefill work) {
    __shared__ ScheduleShared shared;
    if (threadIdx.x == 0) {
        shared.pairs = 0;
        shared.best = ~0ull;
        shared.tiles = shared.pairs_max = shared.block_count = 0;
    }
    __syncthreads();
    make_streams(work, shared);
    const int part_pairs = choose_part_pairs(work, shared);
    count_blocks_before(work, shared, part_pairs);
    for (int block = threadIdx.x; block < static_cast<int>(work.blocks.size); block += kThreads) {
        work.blocks.data[block] = make_prefill_block(work.batch, work.streams.data, part_pairs, block);
    }
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("schedule_prefill: ") + rule);
}

void check_schedule(const SchedulePrefill& work) {
    const HeadShape& heads = work.batch.shape.heads;
    require(heads.kv_heads >= 1 && heads.query_heads >= heads.kv_heads && heads.query_heads % heads.kv_heads == 0,
            "query_heads must be a positive multiple of kv_heads");
    require(work.batch.shape.chunk_query_count_max >= 1, "chunk_query_count_max must be positive");
    require(work.batch.multiprocessor_count >= 1, "multiprocessor_count must be positive");
    require(work.batch.lists.size == work.batch.items.size * heads.kv_heads,
            "there must be kv_heads lists for each item");
    require(work.streams.size == work.batch.lists.size + 1, "streams must be [items * kv_heads + 1]");
    const int block_count = prefill_block_count(work.batch.shape, static_cast<int>(work.batch.items.size));
    require(work.blocks.size == static_cast<std::size_t>(block_count), "blocks must be [prefill_block_count]");
}

}  // namespace

void schedule_prefill(const SchedulePrefill& work, Stream stream) {
    check_schedule(work);
    make_prefill_schedule<<<1, kThreads, 0, stream>>>(work);
    check_launch("make_prefill_schedule");
}

}  // namespace kvgrid::kernels
