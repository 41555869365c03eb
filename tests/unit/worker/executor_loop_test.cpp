// Pieces of work are applied in order and told of on the I/O side. While a piece waits for a device, its thread does the I/O work: what the piece before
// brought is told, and posted work is done, before the wait is over.

#include "worker/executor_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace kvgrid::worker {
namespace {

using namespace std::chrono_literals;

class ExecutorLoopTest : public testing::Test {
  protected:
    void start() {
        thread_ = std::jthread([this] { loop_.run(); });
    }
    ~ExecutorLoopTest() override { loop_.stop(); }

    // As a device's wait: false after some time.
    bool wait_for(const std::function<bool()>& condition) {
        const Deadline deadline = deadline_in(10s);
        while (!condition()) {
            if (std::chrono::steady_clock::now() > deadline) return false;
            loop_.while_waiting();
        }
        return true;
    }

    comm::IoThread io_;
    ExecutorLoop loop_{io_};
    std::jthread thread_;
};

TEST_F(ExecutorLoopTest, TellsOfEachPieceInOrder) {
    std::vector<int> told;
    std::atomic<int> count = 0;
    start();
    for (int piece = 0; piece < 100; ++piece) {
        loop_.post([&, piece] {
            loop_.report([&, piece] {
                told.push_back(piece);
                ++count;
            });
        });
    }
    const Deadline deadline = deadline_in(10s);
    while (count < 100 && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
    ASSERT_EQ(count, 100);
    for (int piece = 0; piece < 100; ++piece) EXPECT_EQ(told[piece], piece);
}

TEST_F(ExecutorLoopTest, TellsOfThePieceBeforeWhileTheNextOneWaits) {
    std::atomic<bool> is_told = false, has_waited = false, in_time = false;
    loop_.waits_do_io();
    loop_.post([&] { loop_.report([&] { is_told = true; }); });
    loop_.post([&] {
        in_time = wait_for([&] { return is_told.load(); });
        has_waited = true;
    });
    start();
    const Deadline deadline = deadline_in(10s);
    while (!has_waited && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(in_time);
}

TEST_F(ExecutorLoopTest, ReadsTheNextPieceWhileOneWaits) {
    std::atomic<bool> begun = false, next_is_here = false, in_time = false, next_ran = false;
    loop_.waits_do_io();
    loop_.post([&] {
        begun = true;
        in_time = wait_for([&] { return next_is_here.load(); });
    });
    start();
    const Deadline deadline = deadline_in(10s);
    while (!begun && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
    io_.post([&] {  // as a message that arrives
        loop_.post([&] { next_ran = true; });
        next_is_here = true;
    });
    while (!next_ran && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(in_time && next_ran);
}

}  // namespace
}  // namespace kvgrid::worker
