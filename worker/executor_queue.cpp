#include "worker/executor_queue.h"

#include <utility>

namespace kvgrid::worker {

void ExecutorQueue::post(std::function<void()> work) {
    {
        const std::lock_guard lock(mutex_);
        if (stopped_) return;
        work_.push_back(std::move(work));
    }
    changed_.notify_one();
}

void ExecutorQueue::run() {
    while (run_next()) {
    }
}

void ExecutorQueue::wait_for_work() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopped_ || !work_.empty(); });
}

bool ExecutorQueue::run_next() {
    wait_for_work();
    std::unique_lock lock(mutex_);
    if (stopped_) {
        const auto dropped = std::exchange(work_, {});
        lock.unlock();
        return false;
    }
    const auto work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    return true;
}

bool ExecutorQueue::has_work() {
    const std::lock_guard lock(mutex_);
    return stopped_ || !work_.empty();
}

void ExecutorQueue::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopped_ = true;
    }
    changed_.notify_all();
}

}  // namespace kvgrid::worker
