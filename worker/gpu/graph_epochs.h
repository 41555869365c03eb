#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/cuda/decode_schedule.h"

namespace kvgrid::worker {

// What the launches of a plan's layers depend on, besides addresses.
struct PlanSize {
    std::size_t items = 0, chunks = 0, runs = 0;
    std::size_t units = 0, blocks = 0, chunk_blocks = 0;
    int query_count_max = 0, chunk_query_count_max = 0;
    int chunk_pages_max = 0;  // of any list; 0 without chunks
    kernels::UnitCut cut;

    auto operator<=>(const PlanSize&) const = default;
};

// The same of all layers of a batch.
struct GraphShape {
    std::size_t batch = 0;  // whose buffers its plans are in
    int rows = 0;
    bool attends = false;
    std::vector<PlanSize> plans;  // [class of layers]

    auto operator<=>(const GraphShape&) const = default;
};

// Numbers for what captured layer calls depend on: the same for as long as graphs of it are good, never given again once they are not.
class GraphEpochs {
  public:
    static constexpr std::size_t kShapesMax = 4096;

    // `last`: the last number that was given, by any model of the device.
    explicit GraphEpochs(std::uint64_t& last) : last_(last) {}

    // `move_count` goes up whenever a buffer moves: all graphs are void then.
    std::uint64_t of(const GraphShape& shape, int move_count) {
        if (move_count != move_count_ || known_.size() == kShapesMax) known_.clear();
        move_count_ = move_count;
        const auto [found, is_new] = known_.try_emplace(shape, last_ + 1);
        if (is_new) ++last_;
        return found->second;
    }

  private:
    std::map<GraphShape, std::uint64_t> known_;
    std::uint64_t& last_;
    int move_count_ = 0;
};

}  // namespace kvgrid::worker
