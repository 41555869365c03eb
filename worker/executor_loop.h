#pragma once

#include <functional>
#include <vector>

#include "comm/rpc/io_thread.h"
#include "core/clock.h"
#include "worker/executor_queue.h"

namespace kvgrid::worker {

// What a worker's executor thread does all day: applies what is posted, and tells the I/O side what became of it.
//
// While it has nothing to apply it stands in for the I/O thread: it finds the message that brings the next operation, applies it, and sends
// what comes of it, all without waking another thread. Where operations take long, the two threads work side by side instead.
// Where they wait for a device, it stands in meanwhile, too: what the operation before brought is told, and the next one is read.
class ExecutorLoop {
  public:
    explicit ExecutorLoop(comm::IoThread& io) : io_(io) {}

    void post(std::function<void()> work) { queue_.post(std::move(work)); }  // from any thread

    // From a piece of work: what is to be done on the I/O thread after it.
    void report(std::function<void()> news) { news_.push_back(std::move(news)); }

    // From a piece of work, again and again while it waits for something that needs no thread. `waits_do_io`: pieces do so.
    void while_waiting();
    void waits_do_io() { waits_do_io_ = true; }  // before `run`

    void run();   // until `stop`
    void stop();  // from any thread

  private:
    void tell_news(bool stands_in);
    void hand_news_over();
    void work_off(comm::IoThread::StandIn& here);

    comm::IoThread& io_;
    ExecutorQueue queue_;
    std::vector<std::function<void()>> news_;  // executor thread only
    bool waits_do_io_ = false;

    // Executor thread only.
    TimePoint worked_off_{};      // when the sockets had their turn last
    bool is_first_look_ = false;  // of this piece
};

}  // namespace kvgrid::worker
