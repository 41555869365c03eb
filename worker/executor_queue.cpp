#include "worker/executor_queue.h"

#include <chrono>
#include <utility>

namespace kvgrid::worker {
namespace {

// Longer work is worth two wake-ups: messages are read, and operations sent to peers, while it runs. The piece before tells.
constexpr std::chrono::microseconds kLongWork{250};

}  // namespace

void ExecutorQueue::post(std::function<void()> work) {
    {
        const std::lock_guard lock(mutex_);
        if (stopped_) return;
        work_.push_back(std::move(work));
    }
    changed_.notify_one();
}

void ExecutorQueue::run() {
    bool stands_in = false;
    while (auto work = next(stands_in)) {
        const TimePoint start = std::chrono::steady_clock::now();
        work();
        stands_in = std::chrono::steady_clock::now() - start < kLongWork;
    }
    news_.clear();
}

// Tells the news and waits. Nothing: stopped.
std::function<void()> ExecutorQueue::next(bool stands_in) {
    if (!stands_in || !stand_in()) {
        for (auto& news : std::exchange(news_, {})) io_.post(std::move(news));
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopped_ || !work_.empty(); });
    if (stopped_) {
        const auto dropped = std::exchange(work_, {});
        lock.unlock();
        return nullptr;
    }
    auto work = std::move(work_.front());
    work_.pop_front();
    return work;
}

bool ExecutorQueue::stand_in() {
    comm::IoThread::StandIn here(io_);
    if (!here) return false;
    for (const auto& news : std::exchange(news_, {})) news();
    here.work_until([this] { return has_work(); }, Deadline::max());
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
    io_.post([] {});  // wakes a stand-in
}

}  // namespace kvgrid::worker
