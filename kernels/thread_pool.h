#pragma once

#include <functional>
#include <memory>

namespace kvgrid::kernels {

// Runs the tasks of one kernel call on a fixed set of threads, the caller's among them. One call at a time, from one thread.
// With one thread nothing is started and tasks run in the caller.
class ThreadPool {
  public:
    explicit ThreadPool(int thread_count);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int thread_count() const { return thread_count_; }

    // Calls task(0) ... task(task_count - 1), each once, in any order and at once; returns when all have ended.
    // A task must not throw.
    void run(int task_count, const std::function<void(int)>& task);

  private:
    struct Shared;
    int thread_count_;
    std::unique_ptr<Shared> shared_;
};

}  // namespace kvgrid::kernels
