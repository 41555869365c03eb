#pragma once

#include <algorithm>
#include <mutex>

#include "comm/collective/collective.h"

namespace kvgrid::worker {

// The executor thread's collective, so that other threads can free it from a wait that has become pointless.
class CollectiveSlot {
  public:
    // Null: there is none (any more). On the executor thread, before the collective dies.
    void hold(comm::Collective* collective) {
        const std::lock_guard lock(mutex_);
        held_ = collective;
        cancel_if_over();
    }

    // Generations up to this one are over, also if their collective is made only later. From any thread.
    void cancel(Generation generation) {
        const std::lock_guard lock(mutex_);
        over_ = std::max(over_, generation);
        cancel_if_over();
    }

  private:
    void cancel_if_over() {
        if (held_ && held_->generation() <= over_) held_->cancel();
    }

    std::mutex mutex_;
    comm::Collective* held_ = nullptr;
    Generation over_;
};

}  // namespace kvgrid::worker
