#include "comm/rpc/io_turn.h"

namespace kvgrid::comm {

void IoTurn::give_to(Holder holder, std::thread::id runner) {
    holder_ = holder;
    runner_.store(runner, std::memory_order_relaxed);
}

void IoTurn::begin() {
    const std::lock_guard lock(mutex_);
    give_to(Holder::io_thread, std::this_thread::get_id());
}

void IoTurn::hand_over() {
    std::unique_lock lock(mutex_);
    if (stopped_) return;
    give_to(Holder::stand_in, stand_in_);
    taken_.notify_one();
    wait_for_turn(lock);
    give_to(Holder::io_thread, std::this_thread::get_id());
}

// Looks at the clock only while there is a stand-in that comes and goes.
void IoTurn::wait_for_turn(std::unique_lock<std::mutex>& lock) {
    const auto is_mine_again = [this] { return stopped_ || holder_ == Holder::io_thread; };
    for (;;) {
        const std::uint64_t seen = leave_count_;
        if (changed_.wait_for(lock, kPatience, is_mine_again)) return;
        if (leave_count_ != seen) continue;
        if (holder_ == Holder::nobody) return;
        resting_ = true;
        changed_.wait(lock, [&] { return is_mine_again() || !resting_; });
        resting_ = false;
    }
}

bool IoTurn::take(const std::function<void()>& ask) {
    std::unique_lock lock(mutex_);
    if (stand_in_ != std::thread::id()) return false;
    if (holder_ == Holder::io_thread && expected_ > 0) return false;
    stand_in_ = std::this_thread::get_id();
    if (holder_ == Holder::nobody) {
        give_to(Holder::stand_in, stand_in_);
        return true;
    }
    ask();
    taken_.wait(lock, [this] { return holder_ == Holder::stand_in; });
    return true;
}

void IoTurn::leave() {
    const std::lock_guard lock(mutex_);
    ++leave_count_;
    stand_in_ = {};
    const bool expected = expected_ > 0;
    give_to(expected ? Holder::io_thread : Holder::nobody, {});
    if (!expected && !resting_) return;
    resting_ = false;
    changed_.notify_one();
}

void IoTurn::resume() {
    const std::lock_guard lock(mutex_);
    if (holder_ != Holder::nobody) return;
    give_to(Holder::io_thread, {});
    changed_.notify_one();
}

void IoTurn::stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_one();
}

}  // namespace kvgrid::comm
