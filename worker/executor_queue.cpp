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
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return stopped_ || !work_.empty(); });
        if (stopped_) break;
        auto work = std::move(work_.front());
        work_.pop_front();
        lock.unlock();
        work();
        work = nullptr;  // what it holds is let go of outside the lock
        lock.lock();
    }
    auto dropped = std::exchange(work_, {});
    lock.unlock();
}

void ExecutorQueue::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopped_ = true;
    }
    changed_.notify_all();
}

}  // namespace kvgrid::worker
