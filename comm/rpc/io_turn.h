#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace kvgrid::comm {

// Whose turn it is to do the I/O work of one IoThread: its own thread's, or that of another thread that stands in for it.
//
//   the I/O thread's --take--> the stand-in's --leave--> nobody's --take--> the stand-in's
//          ^                                                |
//          +---- resume, or after kPatience at least -------+
//
// Nobody's is the state between two calls of a client, or while a worker applies an operation: waking the I/O thread for so short a time
// would cost more than the time.
class IoTurn {
  public:
    static constexpr std::chrono::milliseconds kPatience{40};

    bool is_mine() const { return runner_.load(std::memory_order_relaxed) == std::this_thread::get_id(); }

    // On the I/O thread: its first turn, and what it does when `take` asks for the turn. hand_over returns with the turn.
    void begin();
    void hand_over();

    // On any other thread. Not taken where another one stands in, or where others wait for what the I/O thread does just now. `ask` makes
    // the I/O thread call hand_over.
    bool take(const std::function<void()>& ask);
    void leave();  // the I/O thread's turn if somebody expects anything, else nobody's

    // From any thread: something waits for I/O work that is not the stand-in's own business.
    void expect() { ++expected_; }
    void expect_no_more() { --expected_; }
    void resume();  // the I/O thread's turn, if it is nobody's

    void stop();  // hand_over returns

  private:
    enum class Holder { io_thread, stand_in, nobody };

    void give_to(Holder holder, std::thread::id runner);
    void wait_for_turn(std::unique_lock<std::mutex>& lock);

    std::atomic<std::thread::id> runner_;
    std::atomic<int> expected_ = 0;

    std::mutex mutex_;
    std::condition_variable changed_;  // for the I/O thread
    std::condition_variable taken_;    // for the stand-in
    Holder holder_ = Holder::io_thread;
    std::thread::id stand_in_;  // that has or asks for the turn
    std::uint64_t leave_count_ = 0;
    bool resting_ = false;  // the I/O thread waits without looking at the clock
    bool stopped_ = false;
};

}  // namespace kvgrid::comm
