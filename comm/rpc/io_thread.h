#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "core/clock.h"

namespace kvgrid::comm {

// One thread that runs all socket work and timers of a process. Servers and channels live on it; it outlives them. Another thread may stand
// in for it: "on the I/O thread" then means on that one.
class IoThread {
  public:
    IoThread();
    ~IoThread();  // stops and joins
    IoThread(const IoThread&) = delete;
    IoThread& operator=(const IoThread&) = delete;

    void post(std::function<void()> work);  // from any thread; runs on the I/O thread, in order of posting
    bool on_this_thread() const;

    // From a thread that has stood in and will not be back soon: the I/O thread goes on at once, unless somebody else stands in.
    void resume();

    // Does the I/O thread's work in a thread that waits for a message, which is then not woken by the I/O thread but finds it itself.
    //
    //   Between two stand-ins nobody works, unless others wait for something; after IoTurn::kPatience the I/O thread goes on by itself. So a
    //   thread may come and go without waking it, and whatever it does between is not waited for.
    class StandIn {
      public:
        explicit StandIn(IoThread& io);  // in vain where another thread stands in, or the I/O thread works for others
        ~StandIn() { leave(); }
        StandIn(const StandIn&) = delete;
        StandIn& operator=(const StandIn&) = delete;
        explicit operator bool() const { return stands_in_; }

        // Works until done(), which is asked before each handler, or the deadline. Returns at once where the constructor was in vain.
        void work_until(const std::function<bool()>& done, Deadline deadline);
        // Does what is ready, without waiting.
        void work_off();
        void look();  // what is ready in shared memory: no system call
        void leave();

      private:
        IoThread& io_;
        bool stands_in_;
    };

    // Calls `work` on the I/O thread every `period`, first after one period, until the handle dies (which waits for a call that is
    // running, except from inside it).
    class Timer;
    std::shared_ptr<Timer> every(std::chrono::milliseconds period, std::function<void()> work);

    struct Impl;
    Impl& impl() { return *impl_; }

  private:
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvgrid::comm
