#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace kvgrid::worker {

// Work for a worker's executor thread, in order. The lead bounds how many operations are under way, so the queue needs no bound.
class ExecutorQueue {
  public:
    // From any thread. Work posted after `stop` is dropped.
    void post(std::function<void()> work);

    // Runs work as it comes, in the calling thread, until `stop`.
    void run();

    // The same by pieces. False: stopped.
    bool run_next();
    void wait_for_work();
    bool has_work();  // or is stopped: neither of the two above would wait

    // From any thread: `run` returns after the piece of work that is running.
    void stop();

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> work_;
    bool stopped_ = false;
};

}  // namespace kvgrid::worker
