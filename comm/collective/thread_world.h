#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "comm/collective/collective.h"

namespace kvgrid::comm {

// Several ranks of one process: what MpiWorld is to the ranks of a launcher.
//
//   Threads  any; each world rank forms and uses its collectives on one thread of its own.
class ThreadWorld {
  public:
    explicit ThreadWorld(int size);

    int size() const { return size_; }
    std::uint64_t id() const { return id_; }  // random, not 0, and of this world alone

    // The collective of the world ranks listed, in that order, under a generation, for world rank `self`; each of those ranks asks for
    // its own. Returns at once: who of them has not come is found by the first collective call. stale_generation if another rank was
    // here with a later one.
    Result<std::unique_ptr<Collective>> form(int self, const std::vector<int>& world_ranks, Generation generation);

  private:
    struct Forming {
        std::vector<int> world_ranks;
        std::vector<std::unique_ptr<Collective>> collectives;  // [rank]; null: taken
    };

    const int size_;
    const std::uint64_t id_;
    std::mutex mutex_;
    Generation latest_;
    Forming forming_;  // of the latest generation
};

}  // namespace kvgrid::comm
