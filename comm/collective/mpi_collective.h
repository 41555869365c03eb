#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/collective/collective.h"

namespace kvgrid::comm {

// MPI, from MPI_Init to MPI_Finalize. All of MPI is called from the thread that made this: keep one per process, on the thread that
// will use the collectives. Errors of MPI itself are Fatal.
class MpiWorld {
  public:
    MpiWorld();   // MPI_Init_thread(MPI_THREAD_FUNNELED), errors returned instead of aborting
    ~MpiWorld();  // MPI_Finalize; the other ranks go on
    MpiWorld(const MpiWorld&) = delete;
    MpiWorld& operator=(const MpiWorld&) = delete;

    int rank() const { return rank_; }
    int size() const { return size_; }
    std::uint64_t id() const { return id_; }  // random, not 0, the same for all ranks of this world and for no other

    // Forms the collective of the world ranks listed, in that order, under a generation; called by exactly those ranks.
    // MPI_Comm_create_group cannot be given up once begun: if it has not returned by the deadline, a watchdog ends the process with
    // a message that says so. The collective must be destroyed before the world. stale_generation if a rank came with another one.
    Result<std::unique_ptr<Collective>> form(const std::vector<int>& world_ranks, Generation generation,
                                             Deadline deadline);

    // Calls of all collectives so far that were given up, at their deadline or cancelled; each has leaked its buffers.
    std::uint64_t abandoned_request_count() const;

  private:
    int rank_ = 0;
    int size_ = 0;
    std::uint64_t id_ = 0;
    std::shared_ptr<std::atomic<std::uint64_t>> abandoned_ = std::make_shared<std::atomic<std::uint64_t>>(0);
};

}  // namespace kvgrid::comm
