// Frames in shared memory arrive as they were sent, or their sender knows that they may not be seen; and what a hostile side writes there is
// refused.

#include "comm/rpc/frame_ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "core/clock.h"

namespace kvgrid::comm {
namespace {

using Sent = FrameRing::Sent;

struct FrameRings : ::testing::Test {
    Sent send(std::string_view message, std::uint64_t request = 1) {
        return client.send({.type = MessageType::layer, .generation = 3, .request = request, .timeout_ms = 50},
                           message);
    }

    const std::shared_ptr<SharedRegion> region = SharedRegion::make(FrameRing::bytes()).value();
    FrameRing client{region, FrameRing::Side::client};
    FrameRing server{region, FrameRing::Side::server};
};

TEST_F(FrameRings, AFrameArrivesAsItWasSentInItsOwnDirection) {
    server.set_looking(true);
    EXPECT_FALSE(server.receive());
    ASSERT_EQ(send("question", 9), Sent::seen);
    EXPECT_FALSE(client.receive());

    const auto frame = server.receive();
    ASSERT_TRUE(frame && frame->ok());
    EXPECT_EQ((*frame)->header.type, MessageType::layer);
    EXPECT_EQ((*frame)->header.generation, 3u);
    EXPECT_EQ((*frame)->header.request, 9u);
    EXPECT_EQ((*frame)->header.timeout_ms, 50u);
    EXPECT_EQ((*frame)->message, "question");
    EXPECT_FALSE(server.receive());
}

TEST_F(FrameRings, NothingIsSentToOneThatDoesNotLook) {
    EXPECT_EQ(send("a"), Sent::no);
    server.set_looking(true);
    EXPECT_EQ(send("b"), Sent::seen);
    server.set_looking(false);
    EXPECT_EQ(send("c"), Sent::no);
    EXPECT_EQ(server.receive()->value().message, "b");
    EXPECT_FALSE(server.receive());
}

TEST_F(FrameRings, WhatDoesNotFitIsNotSent) {
    server.set_looking(true);
    const std::string longest(FrameRing::kFrameBytesMax - kFrameHeaderBytes, 'x');
    EXPECT_EQ(send(longest + 'x'), Sent::no);
    for (std::size_t i = 0; i < FrameRing::kFrames; ++i) EXPECT_EQ(send(longest), Sent::seen);
    EXPECT_EQ(send(""), Sent::no);
    EXPECT_EQ(server.receive()->value().message, longest);
    EXPECT_EQ(send(""), Sent::seen);
}

// The receiver sleeps and wakes as it likes: each frame is either received, or its sender was told that it may not be, or that it is not sent.
TEST_F(FrameRings, NoFrameIsLostBetweenLookingAndSleeping) {
    const Deadline end = deadline_in(std::chrono::seconds(1));
    std::atomic<std::uint64_t> told = 0;  // the last frame that its sender saw unseen
    std::atomic<bool> ended = false;
    std::uint64_t received = 0;
    std::jthread receiver([&] {
        std::minstd_rand random(1);
        const auto take = [&] {
            while (const auto frame = server.receive()) {
                EXPECT_EQ((*frame)->header.request, received + 1);
                received = (*frame)->header.request;
            }
        };
        while (!ended) {
            server.set_looking(true);
            for (unsigned looks = random() % 8; looks > 0; --looks) {
                take();
                if (random() % 2 == 0) std::this_thread::yield();
            }
            server.set_looking(false);
            take();
            for (unsigned yields = random() % 8; yields > 0; --yields) std::this_thread::yield();
            if (!server.holds_frame()) continue;
            // It came to a sleeper, and its sender knows.
            const TimePoint asked = std::chrono::steady_clock::now();
            while (told <= received && std::chrono::steady_clock::now() < asked + std::chrono::seconds(10)) {
                std::this_thread::yield();
            }
            EXPECT_GT(told, received);
        }
        take();
    });
    std::uint64_t last = 0;
    while (std::chrono::steady_clock::now() < end) {
        const Sent sent = send("", last + 1);
        if (sent == Sent::no) {
            std::this_thread::yield();
        } else {
            ++last;
            if (sent == Sent::unseen) told = last;
        }
    }
    ended = true;
    receiver.join();
    EXPECT_EQ(received, last);
    EXPECT_GT(last, 0u);
}

TEST_F(FrameRings, WhatAHostileSideWritesIsRefused) {
    server.set_looking(true);
    for (const bool too_long : {false, true}) {
        ASSERT_NE(send("x"), Sent::no);
        // Its header stands in the memory as it does on a socket.
        std::byte* at = region->bytes().data();
        while (std::memcmp(at, "KVGR", 4) != 0) ++at;
        const std::uint32_t length = FrameRing::kFrameBytesMax;
        std::memcpy(at + (too_long ? 24 : 6), &length, too_long ? 4 : 2);
        const auto frame = server.receive();
        ASSERT_TRUE(frame);
        EXPECT_FALSE(frame->ok());
    }
}

}  // namespace
}  // namespace kvgrid::comm
