#include "worker/executor_loop.h"

#include <chrono>
#include <utility>

#include "core/clock.h"

namespace kvgrid::worker {
namespace {

// Longer work is worth two wake-ups: messages are read, and operations sent to peers, while it runs. The piece before tells.
constexpr std::chrono::microseconds kLongWork{500};

// Between two looks at the sockets, which cost a system call, of a wait that may end any moment.
constexpr std::chrono::microseconds kSocketPeriod{20};
// How long they may be left alone for pieces that do not wait.
constexpr std::chrono::microseconds kSocketDelayMax{500};

}  // namespace

void ExecutorLoop::run() {
    bool stands_in = false;
    for (;;) {
        // The next piece tells while it waits.
        if (!(waits_do_io_ && queue_.has_work())) tell_news(stands_in);
        queue_.wait_for_work();
        is_first_look_ = true;
        const TimePoint start = std::chrono::steady_clock::now();
        if (!queue_.run_next()) return;
        stands_in = waits_do_io_ || std::chrono::steady_clock::now() - start < kLongWork;
    }
}

void ExecutorLoop::while_waiting() {
    comm::IoThread::StandIn here(io_);
    if (!here) return hand_news_over();
    const bool is_first = std::exchange(is_first_look_, false);
    if (news_.empty() && !is_first && std::chrono::steady_clock::now() < worked_off_ + kSocketPeriod)
        return here.look();
    for (const auto& news : std::exchange(news_, {})) news();
    work_off(here);
}

void ExecutorLoop::work_off(comm::IoThread::StandIn& here) {
    here.work_off();
    worked_off_ = std::chrono::steady_clock::now();
}

// And does the I/O thread's work until there is something to apply, if it can stand in.
void ExecutorLoop::tell_news(bool stands_in) {
    if (stands_in) {
        comm::IoThread::StandIn here(io_);
        if (here) {
            for (const auto& news : std::exchange(news_, {})) news();
            here.work_until([this] { return queue_.has_work(); }, Deadline::max());
            // Calls that have come by now can run with the next one; and nobody starves. A device is not kept waiting for it.
            const bool may_follow = waits_do_io_ && std::chrono::steady_clock::now() < worked_off_ + kSocketDelayMax;
            may_follow ? here.look() : work_off(here);
            return;
        }
    }
    hand_news_over();
    io_.resume();  // the next operation has to be read by somebody
}

void ExecutorLoop::hand_news_over() {
    for (auto& news : std::exchange(news_, {})) io_.post(std::move(news));
}

void ExecutorLoop::stop() {
    queue_.stop();
    io_.post([] {});  // wakes a stand-in
}

}  // namespace kvgrid::worker
