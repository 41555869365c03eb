// Blocks of shared memory do not overlap and come back; the lead is told of the memory once for each connection; and where memory cannot be
// shared, or has no room, there is no block, and the call uses the socket.

#include "client/shared_tensors.h"

#include <gtest/gtest.h>

#include <set>

#include "comm/wire/kvgrid.pb.h"
#include "tests/unit/client/fake_cluster.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;

class SharedTensorsTest : public testing::Test {
  protected:
    SharedTensorsTest() { server_.reply(MessageType::share_memory, MessageType::empty, wire::Empty()); }

    std::shared_ptr<SharedTensors::Block> take(std::size_t bytes) {
        return tensors_->take(channel_, 5, bytes, deadline_in(10s));
    }
    int told() const { return server_.count(MessageType::share_memory); }

    FakeServer server_;
    comm::IoThread io_;
    comm::Channel channel_{io_, comm::parse_endpoint(server_.endpoint()).value()};
    std::shared_ptr<SharedTensors> tensors_ = SharedTensors::make(channel_);
};

TEST_F(SharedTensorsTest, BlocksDoNotOverlapAndComeBack) {
    std::set<std::size_t> offsets;
    std::vector<std::shared_ptr<SharedTensors::Block>> held;
    for (int i = 0; i < 10; ++i) {
        held.push_back(take(1000));
        ASSERT_TRUE(held.back());
        EXPECT_EQ(held.back()->bytes().size(), 1000u);
        EXPECT_TRUE(offsets.insert(held.back()->offset() / 1024).second);
        EXPECT_EQ(held.back()->offset() % 256, 0u);
    }
    EXPECT_EQ(told(), 1);
    held.clear();
    EXPECT_EQ(take(5000)->offset(), 0u);
}

TEST_F(SharedTensorsTest, ABlockWhoseCallWasGivenUpIsNotUsedAgain) {
    auto lost = take(1000);
    lost->give_up();
    lost.reset();
    EXPECT_GE(take(1000)->offset(), 1000u);
}

TEST_F(SharedTensorsTest, TheLeadOfTheNextConnectionIsToldAgain) {
    ASSERT_TRUE(take(1));
    server_.stop();
    server_.start();
    for (const Deadline end = deadline_in(10s); told() < 2 && std::chrono::steady_clock::now() < end;) {
        take(1);  // the channel connects again with some delay
    }
    EXPECT_EQ(told(), 2);
    EXPECT_TRUE(take(1));
}

TEST_F(SharedTensorsTest, WhatHasNoRoomUsesTheSocket) {
    EXPECT_FALSE(take(std::size_t{2} << 30));
    EXPECT_FALSE(take(0));
    EXPECT_TRUE(take(1));
}

TEST_F(SharedTensorsTest, ALeadThatCannotIsAskedOnce) {
    server_.fail(MessageType::share_memory, {Errc::unsupported, "another container"});
    EXPECT_FALSE(take(1));
    EXPECT_FALSE(take(1));
    EXPECT_EQ(told(), 1);
}

}  // namespace
}  // namespace kvgrid
