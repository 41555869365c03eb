#include "kernels/cuda/prefill_schedule.h"

#include <algorithm>

#include "kernels/cuda/prefill_schedule_rules.h"

namespace kvgrid::kernels {

namespace {

std::int64_t count_blocks(const std::vector<PrefillStream>& streams, int part_pairs) {
    std::int64_t count = 0;
    for (const PrefillStream& stream : streams) count += blocks_of_stream(stream, part_pairs);
    return count;
}

int choose_part_pairs(const std::vector<PrefillStream>& streams, const PrefillTotals& totals, int sms) {
    int best = std::max(totals.pairs_max, kPartPairsMin);
    const std::int64_t whole_cost = prefill_cost(totals, best, totals.tiles, sms);
    std::int64_t best_cost = whole_cost;
    for (int parts = 2; parts <= kPartsMax; ++parts) {
        const int part_pairs = part_pairs_of(totals.pairs_max, parts);
        const std::int64_t block_count = count_blocks(streams, part_pairs);
        const std::int64_t cost = prefill_cost(totals, part_pairs, block_count, sms);
        if (cost < best_cost && is_worth_cutting(cost, whole_cost, block_count)) {
            best = part_pairs;
            best_cost = cost;
        }
    }
    return best;
}

}  // namespace

std::vector<PrefillBlock> plan_prefill(const PrefillBatch& batch) {
    std::vector<PrefillStream> streams;
    PrefillTotals totals;
    for (int stream = 0; stream < batch.stream_count(); ++stream) {
        std::int64_t pairs_sum = 0;
        streams.push_back(make_stream(batch, stream, pairs_sum));
        totals.pairs += pairs_sum;
        totals.tiles += streams.back().tile_count;
        totals.pairs_max = std::max(totals.pairs_max, streams.back().pairs_max);
    }
    const int part_pairs = batch.deterministic ? std::max(totals.pairs_max, kPartPairsMin)
                                               : choose_part_pairs(streams, totals, batch.multiprocessor_count);
    streams.push_back({});
    for (std::size_t index = 0; index + 1 < streams.size(); ++index) {
        streams[index + 1].blocks_before =
            streams[index].blocks_before + static_cast<int>(blocks_of_stream(streams[index], part_pairs));
    }
    const int block_count = prefill_block_count(batch.shape, static_cast<int>(batch.items.size));
    std::vector<PrefillBlock> blocks;
    for (int block = 0; block < block_count; ++block) {
        blocks.push_back(make_prefill_block(batch, streams.data(), part_pairs, block));
    }
    return blocks;
}

}  // namespace kvgrid::kernels
