#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/ids.h"

namespace kvgrid::coordinator {

// What a worker's process says of itself when it registers.
struct WorkerProcess {
    std::uint64_t incarnation = 0;  // random, one per process
    std::string endpoint;
    std::string host;
    std::int32_t process_id = 0;
    std::int32_t mpi_rank = 0;       // in the launcher's world
    std::uint64_t memory_bytes = 0;  // budget for page pools
    std::uint64_t world =
        0;  // random, one per launcher's job; 0 where it has not registered here (the catalogue keeps none)

    friend bool operator==(const WorkerProcess&, const WorkerProcess&) = default;
};

struct Member {
    WorkerId worker;
    WorkerProcess process;

    friend bool operator==(const Member&, const Member&) = default;
};

// The workers that hold the cache, by rank; the first one leads. Generation 0: there is no grid.
struct Grid {
    Generation generation;
    std::vector<Member> members;

    int size() const { return static_cast<int>(members.size()); }
};

// Pages of one model in one worker, as its last heartbeat had them.
struct PoolOccupancy {
    ModelId model;
    std::uint64_t page_bytes = 0;
    std::uint64_t capacity_pages = 0;
    std::uint64_t free_pages = 0;
    std::uint64_t used_pages = 0;
    std::uint64_t reserved_pages = 0;
    std::uint64_t shared_pages = 0;
    std::uint64_t sequences = 0;
    std::uint64_t stored_tokens = 0;
};

}  // namespace kvgrid::coordinator
