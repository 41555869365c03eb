// Work runs on the one I/O thread, in order; a timer calls until its handle dies, and not after.

#include "comm/rpc/io_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <vector>

namespace kvgrid::comm {
namespace {

using std::chrono::milliseconds;

TEST(IoThread, WorkRunsInOrderOfPosting) {
    IoThread io;
    std::vector<int> order;  // of the I/O thread until the promise is kept
    std::promise<void> done;

    for (int i = 0; i < 100; ++i) io.post([&order, i] { order.push_back(i); });
    io.post([&] { done.set_value(); });
    done.get_future().wait();

    ASSERT_EQ(order.size(), 100u);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(IoThread, KnowsItself) {
    IoThread io;
    std::promise<bool> inside;
    io.post([&] { inside.set_value(io.on_this_thread()); });

    EXPECT_TRUE(inside.get_future().get());
    EXPECT_FALSE(io.on_this_thread());
}

TEST(IoThread, ATimerCallsUntilItsHandleDies) {
    IoThread io;
    std::atomic<int> calls = 0;
    std::promise<void> third;
    auto timer = io.every(milliseconds(1), [&] {
        if (++calls == 3) third.set_value();
    });
    third.get_future().wait();

    timer.reset();

    const int calls_at_death = calls;
    std::promise<void> later;
    auto other = io.every(milliseconds(10), [&, first = true]() mutable {
        if (std::exchange(first, false)) later.set_value();
    });
    later.get_future().wait();
    EXPECT_EQ(calls, calls_at_death);
}

TEST(IoThread, DestroyingATimerWaitsForACallThatIsRunning) {
    IoThread io;
    std::promise<void> entered, leave;
    std::atomic<bool> left = false;
    auto timer = io.every(milliseconds(1), [&] {
        entered.set_value();
        leave.get_future().wait();
        left = true;
    });
    entered.get_future().wait();

    auto destroyed = std::async(std::launch::async, [&] {
        timer.reset();
        return left.load();
    });
    leave.set_value();

    EXPECT_TRUE(destroyed.get());
}

TEST(IoThread, ATimerMayBeDestroyedByItsOwnCall) {
    IoThread io;
    std::promise<void> done;
    std::shared_ptr<IoThread::Timer> timer;
    io.post([&] {
        timer = io.every(milliseconds(1), [&] {
            timer.reset();
            done.set_value();
        });
    });
    done.get_future().wait();
}

}  // namespace
}  // namespace kvgrid::comm
