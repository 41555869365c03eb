#pragma once

#include <optional>
#include <string>

#include "core/ids.h"
#include "worker/lead.h"

namespace kvgrid::worker {

struct LeadState {
    LeadCounters counters;
    std::size_t queue_depth = 0;  // requests that wait
    std::size_t under_way = 0;    // operations that the ranks have and have not finished
    std::size_t open_steps = 0;
};

// What a worker's I/O thread knows of its grid, at one moment.
struct NodeState {
    Generation generation;  // 0: of no grid
    int rank = -1;
    std::string not_ready;  // why; empty: ready
    std::optional<LeadState> lead;
};

}  // namespace kvgrid::worker
