#include "kernels/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

namespace kvgrid::kernels {

namespace {

// Waits a little for `ready` on the processor. Bounded, because there may be more threads than cores.
template <class Ready>
bool spin_until(const Ready& ready) {
    constexpr auto kSpinTime = std::chrono::microseconds(5);
    const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
    do {
        for (int turn = 0; turn < 16; ++turn) {
            if (ready()) return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    } while (std::chrono::steady_clock::now() < deadline);
    return false;
}

}  // namespace

// One word says which call is open and how many helpers are inside it:
//
//   state   [epoch : 30][stop : 1][open : 1][helpers inside : 32]
//
// A helper enters an open call by adding one, so that the caller, after it has closed the call, knows whom to wait for,
// and never waits for a helper that sleeps. `task` and `task_count` are written only while no call is open and nobody
// is inside.
struct ThreadPool::Shared {
    static constexpr std::uint64_t kOpen = 1ull << 32;
    static constexpr std::uint64_t kStop = 1ull << 33;
    static constexpr std::uint64_t kEpoch = 1ull << 34;

    static std::uint32_t inside(std::uint64_t state) { return static_cast<std::uint32_t>(state); }
    static std::uint64_t epoch(std::uint64_t state) { return state / kEpoch; }

    std::atomic<std::uint64_t> state{0};
    std::atomic<std::uint64_t> emptied{
        0};  // epoch of the last call that a helper left as the last one after it was closed
    alignas(64) std::atomic<int> next_task{0};
    const std::function<void(int)>* task = nullptr;
    int task_count = 0;
    std::vector<std::thread> helpers;

    void take_tasks() {
        for (int index = next_task.fetch_add(1, std::memory_order_relaxed); index < task_count;
             index = next_task.fetch_add(1, std::memory_order_relaxed)) {
            (*task)(index);
        }
    }

    void open(int count, const std::function<void(int)>& body) {
        task = &body;
        task_count = count;
        next_task.store(0, std::memory_order_relaxed);
        const std::uint64_t idle = state.load(std::memory_order_relaxed);
        state.store((idle + kEpoch) | kOpen, std::memory_order_release);
        state.notify_all();
    }

    void close() {
        const std::uint64_t before = state.fetch_and(~kOpen, std::memory_order_acq_rel);
        if (inside(before) == 0) return;
        const std::uint64_t mine = epoch(before);
        const auto empty = [&] { return emptied.load(std::memory_order_acquire) == mine; };
        if (spin_until(empty)) return;
        while (!empty()) {
            const std::uint64_t seen = emptied.load(std::memory_order_acquire);
            if (seen != mine) emptied.wait(seen, std::memory_order_acquire);
        }
    }

    void leave() {
        const std::uint64_t before = state.fetch_sub(1, std::memory_order_acq_rel);
        if (inside(before) != 1 || (before & kOpen) != 0) return;
        emptied.store(epoch(before), std::memory_order_release);
        emptied.notify_all();
    }

    // Enters the open call unless it is `last_epoch`, this helper's last one. False: there is nothing to enter.
    bool enter(std::uint64_t last_epoch) {
        std::uint64_t seen = state.load(std::memory_order_acquire);
        while ((seen & kOpen) != 0 && epoch(seen) != last_epoch) {
            if (state.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
                return true;
            }
        }
        return false;
    }

    void help() {
        std::uint64_t last_epoch = 0;
        const auto awake = [&] {
            const std::uint64_t seen = state.load(std::memory_order_acquire);
            return (seen & kStop) != 0 || ((seen & kOpen) != 0 && epoch(seen) != last_epoch);
        };
        for (;;) {
            if (!spin_until(awake)) {
                const std::uint64_t seen = state.load(std::memory_order_acquire);
                if (!awake()) state.wait(seen, std::memory_order_acquire);
            }
            if ((state.load(std::memory_order_acquire) & kStop) != 0) return;
            // The epoch stands still while this helper is inside.
            if (!enter(last_epoch)) continue;
            last_epoch = epoch(state.load(std::memory_order_acquire));
            take_tasks();
            leave();
        }
    }
};

ThreadPool::ThreadPool(int thread_count) : thread_count_(thread_count), shared_(std::make_unique<Shared>()) {
    if (thread_count < 1) throw std::invalid_argument("a thread pool needs at least one thread");
    for (int helper = 1; helper < thread_count; ++helper) {
        shared_->helpers.emplace_back([shared = shared_.get()] { shared->help(); });
    }
}

ThreadPool::~ThreadPool() {
    shared_->state.fetch_or(Shared::kStop, std::memory_order_release);
    shared_->state.notify_all();
    for (std::thread& helper : shared_->helpers) helper.join();
}

void ThreadPool::run(int task_count, const std::function<void(int)>& task) {
    if (thread_count_ == 1 || task_count <= 1) {
        for (int index = 0; index < task_count; ++index) task(index);
        return;
    }
    shared_->open(task_count, task);
    shared_->take_tasks();
    shared_->close();
}

}  // namespace kvgrid::kernels
