#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "comm/rpc/io_thread.h"

namespace kvgrid::worker {

// Work for a worker's executor thread, in order. The lead bounds how many operations are under way, so the queue needs no bound.
//
// While there is none, the executor thread stands in for the I/O thread: it finds the message that brings the next work, does the work, and
// sends what comes of it, all without waking another thread. Only where work takes long do the two threads work side by side.
class ExecutorQueue {
  public:
    explicit ExecutorQueue(comm::IoThread& io) : io_(io) {}

    // From any thread. Work posted after `stop` is dropped.
    void post(std::function<void()> work);

    // From a piece of work: what the I/O thread is to do after it.
    void report(std::function<void()> news) { news_.push_back(std::move(news)); }

    // Runs work as it comes, in the calling thread, until `stop`.
    void run();

    // From any thread: `run` returns after the piece of work that is running.
    void stop();

  private:
    std::function<void()> next(bool stands_in);
    bool stand_in();
    bool has_work();

    comm::IoThread& io_;
    std::vector<std::function<void()>> news_;  // executor thread only
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> work_;
    bool stopped_ = false;
};

}  // namespace kvgrid::worker
