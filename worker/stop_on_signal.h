#pragma once

#include <csignal>
#include <functional>
#include <thread>

namespace kvgrid::worker {

// Calls `drain` at the first SIGTERM or SIGINT, and `stop` at any further one, on a thread of its own. `block` has to be called before
// any other thread starts: they inherit it.
class StopOnSignal {
  public:
    static void block();
    StopOnSignal(std::function<void()> drain, std::function<void()> stop);
    ~StopOnSignal();

  private:
    std::thread thread_;
};

}  // namespace kvgrid::worker
