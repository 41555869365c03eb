// Work runs on the one I/O thread, in order; a timer calls until its handle dies, and not after. Another thread may stand in: then work runs
// there, never in two threads at once, and whoever stands in and leaves leaves nothing undone.

#include "comm/rpc/io_thread.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "comm/rpc/io_turn.h"
#include "comm/rpc/short_waits.h"

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
        if (left) return;  // the next one, where the destruction comes late
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

TEST(ShortWaits, ArePolledUntilSomeHaveBeenLongAndAgainWhenTheyAreShort) {
    ShortWaits waits;
    EXPECT_TRUE(waits.worth_polling());
    for (int i = 0; i < 10; ++i) waits.ended(std::chrono::seconds(1));
    EXPECT_FALSE(waits.worth_polling());
    for (int i = 0; i < 20; ++i) waits.ended(std::chrono::microseconds(20));
    EXPECT_TRUE(waits.worth_polling());
    waits.ended(std::chrono::seconds(1));
    EXPECT_TRUE(waits.worth_polling()) << "one pause of the caller says nothing";
}

Deadline far() {
    return deadline_in(std::chrono::seconds(60));
}

TEST(IoThreadStandIn, DoesTheWorkInItsOwnThread) {
    IoThread io;
    std::thread::id worked_in;
    IoThread::StandIn here(io);
    ASSERT_TRUE(here);
    EXPECT_TRUE(io.on_this_thread());

    io.post([&] { worked_in = std::this_thread::get_id(); });
    here.work_until([&] { return worked_in != std::thread::id(); }, far());

    EXPECT_EQ(worked_in, std::this_thread::get_id());
    here.leave();
    EXPECT_FALSE(io.on_this_thread());
}

TEST(IoThreadStandIn, WorksUntilItsDeadlineAtMost) {
    IoThread io;
    IoThread::StandIn here(io);

    here.work_until([] { return false; }, deadline_in(milliseconds(1)));
}

TEST(IoThreadStandIn, WorksOffWhatIsReady) {
    IoThread io;
    int worked = 0;
    IoThread::StandIn here(io);
    io.post([&] { ++worked; });
    io.post([&] { ++worked; });

    here.work_until([] { return true; }, far());
    EXPECT_EQ(worked, 0);
    here.work_off();

    EXPECT_EQ(worked, 2);
}

TEST(IoThreadStandIn, IsOneAtATime) {
    IoThread io;
    const IoThread::StandIn here(io);

    EXPECT_FALSE(std::async(std::launch::async, [&] { return static_cast<bool>(IoThread::StandIn(io)); }).get());
}

// What the stand-in left undone, and what comes when nobody works.
TEST(IoThreadStandIn, LeavesNothingUndone) {
    IoThread io;
    std::promise<void> left_over, posted_later, timer_fired;
    {
        const IoThread::StandIn here(io);
        io.post([&] { left_over.set_value(); });
    }
    left_over.get_future().wait();
    { const IoThread::StandIn here(io); }
    io.post([&] { posted_later.set_value(); });
    posted_later.get_future().wait();

    auto timer = io.every(milliseconds(1), [&, first = true]() mutable {
        if (std::exchange(first, false)) timer_fired.set_value();
    });
    { const IoThread::StandIn here(io); }
    timer_fired.get_future().wait();  // nobody posts: the I/O thread goes on by itself
}

// Else whatever comes waits for kPatience. Other threads may have the cores, so the median of some tries counts.
TEST(IoThreadStandIn, ThatWillNotBeBackLetsTheIoThreadGoOnAtOnce) {
    using Clock = std::chrono::steady_clock;
    IoThread io;
    std::atomic<int> fired = 0;
    const auto timer = io.every(milliseconds(1), [&] { ++fired; });
    std::vector<Clock::duration> waits;
    for (int i = 0; i < 21; ++i) {
        { const IoThread::StandIn here(io); }
        const auto start = Clock::now();
        io.resume();
        for (const int before = fired; fired == before;) std::this_thread::yield();
        waits.push_back(Clock::now() - start);
    }
    std::ranges::nth_element(waits, waits.begin() + 10);
    EXPECT_LT(waits[10], IoTurn::kPatience / 2);
}

// Four threads come and go while a fifth posts: each piece of work runs once, and no two at the same time.
TEST(IoThreadStandIn, WorkRunsInOneThreadAtATime) {
    constexpr int kPieces = 2'000;
    IoThread io;
    int count = 0;  // of whoever works
    std::atomic<bool> done = false;
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            while (!done) {
                IoThread::StandIn here(io);
                here.work_until([&] { return done.load(); }, deadline_in(milliseconds(1)));
            }
        });
    }
    for (int i = 0; i < kPieces; ++i) {
        io.post([&] {
            EXPECT_TRUE(io.on_this_thread());
            if (++count == kPieces) done = true;
        });
    }
    threads.clear();

    EXPECT_EQ(count, kPieces);
}

}  // namespace
}  // namespace kvgrid::comm
