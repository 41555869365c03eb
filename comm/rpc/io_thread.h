#pragma once

#include <chrono>
#include <functional>
#include <memory>

namespace kvgrid::comm {

// One thread that runs all socket work and timers of a process. Servers and channels live on it; it outlives them.
class IoThread {
  public:
    IoThread();
    ~IoThread();  // stops and joins
    IoThread(const IoThread&) = delete;
    IoThread& operator=(const IoThread&) = delete;

    void post(std::function<void()> work);  // from any thread; runs on the I/O thread, in order of posting
    bool on_this_thread() const;

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
