// A pool runs every task of a call exactly once and returns when all have ended, what they wrote is visible to the caller, and
// the next call may follow at once or after the helpers have gone to sleep.

#include "kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace kvgrid::kernels {
namespace {

class ThreadPools : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPools, testing::Values(1, 2, 4, 9));

TEST_P(ThreadPools, RunEachTaskOnceBeforeTheyReturn) {
    ThreadPool pool(GetParam());
    for (int task_count : {0, 1, 2, 3, 100, 1000}) {
        std::vector<int> turns(task_count);
        pool.run(task_count, [&](int task) { turns[task] += 1; });
        EXPECT_EQ(turns, std::vector<int>(task_count, 1));
    }
}

TEST_P(ThreadPools, TakeCallAfterCall) {
    ThreadPool pool(GetParam());
    std::vector<int> turns(5);
    constexpr int kCalls = 3000;
    // What one call wrote the next one reads, without atomics: the calls are ordered.
    for (int call = 0; call < kCalls; ++call) {
        pool.run(5, [&](int task) { turns[task] += 1; });
    }
    EXPECT_EQ(turns, std::vector<int>(5, kCalls));
}

TEST_P(ThreadPools, LetAllThreadsWorkAtOnce) {
    ThreadPool pool(GetParam());
    // Ends only if as many tasks run at the same time as there are threads.
    std::barrier all(GetParam());
    pool.run(GetParam(), [&](int) { all.arrive_and_wait(); });
}

TEST_P(ThreadPools, WakeHelpersThatSleep) {
    ThreadPool pool(GetParam());
    for (int call = 0; call < 20; ++call) {
        std::barrier all(GetParam());
        pool.run(GetParam(), [&](int) { all.arrive_and_wait(); });
        // Yields for longer than helpers spin, so that most of them are parked when the next call comes.
        for (int turn = 0; turn < 100; ++turn) std::this_thread::yield();
    }
}

TEST(ThreadPool, WithOneThreadRunsEverythingInTheCaller) {
    ThreadPool pool(1);
    std::set<std::thread::id> threads;
    pool.run(10, [&](int) { threads.insert(std::this_thread::get_id()); });
    EXPECT_EQ(threads, std::set{std::this_thread::get_id()});
}

TEST(ThreadPool, EndsWithoutEverHavingRun) {
    ThreadPool pool(8);
    EXPECT_EQ(pool.thread_count(), 8);
}

TEST(ThreadPool, NeedsAThread) {
    EXPECT_THROW(ThreadPool(0), std::invalid_argument);
}

}  // namespace
}  // namespace kvgrid::kernels
