// Workers register and report; clients see in the status who is there, whether the grid is ready, and why not. Over real sockets.

#include "tests/unit/coordinator/cluster_fixture.h"

namespace kvgrid::coordinator {
namespace {

TEST_F(ClusterTest, TheGridIsReadyWhenAllWorkersHaveFormedIt) {
    EXPECT_EQ(status().not_ready_because(), "0 of 2 workers have registered");
    const auto late = register_worker(102, 1).value();
    EXPECT_EQ(late.membership().generation(), 0u);
    EXPECT_EQ(late.heartbeat_ms(), 3'600'000u);

    const auto first = register_worker(101, 0).value();
    ASSERT_EQ(first.membership().members_size(), 2);
    EXPECT_EQ(first.membership().generation(), 1u);
    EXPECT_EQ(first.membership().members(0).worker(), first.worker()) << "by MPI rank, not by arrival";
    EXPECT_EQ(first.membership().members(0).endpoint(), lead_endpoint);
    EXPECT_EQ(heartbeat(late.worker(), 0)->membership().generation(), 1u);
    EXPECT_FALSE(status().ready());
    EXPECT_EQ(status().lead_endpoint(), "");

    ASSERT_TRUE(heartbeat(first.worker(), 1));
    ASSERT_TRUE(heartbeat(late.worker(), 1));
    const auto ready = status();
    EXPECT_TRUE(ready.ready()) << ready.not_ready_because();
    EXPECT_EQ(ready.lead_endpoint(), lead_endpoint);
    EXPECT_EQ(ready.generation(), 1u);
    EXPECT_EQ(ready.expected_workers(), 2u);
    EXPECT_NE(ready.version(), "");
}

TEST_F(ClusterTest, TheStatusTellsOfEachWorker) {
    form_grid();
    ASSERT_TRUE(register_worker(103, 2));
    wire::Occupancy pool;
    pool.set_model(7);
    pool.set_free_pages(5);
    ASSERT_TRUE(heartbeat(2, 1, true, {pool}));

    const auto reply = status();
    ASSERT_EQ(reply.workers_size(), 3);
    EXPECT_EQ(reply.workers(0).rank(), 0);
    EXPECT_EQ(reply.workers(1).rank(), 1);
    EXPECT_EQ(reply.workers(2).rank(), -1);
    EXPECT_EQ(reply.workers(1).models(0).model(), 7u);
    EXPECT_EQ(reply.workers(1).models(0).free_pages(), 5u);
    EXPECT_EQ(reply.workers(0).memory_bytes(), kWorkerMemory);
    EXPECT_TRUE(reply.workers(0).alive());
    EXPECT_EQ(reply.workers(1).version(), "0.0.9");
}

TEST_F(ClusterTest, ADeadWorkerIsToldAndNothingReachesTheGridThen) {
    form_grid();
    for (int i = 0; i < 20; ++i) {
        pass(100ms);
        ASSERT_TRUE(heartbeat(1, 1));
    }
    const auto reply = status();
    EXPECT_FALSE(reply.ready());
    EXPECT_EQ(reply.not_ready_because(),
              "worker 2 (rank 1, pid 102 on host x) has not been heard of for 2.0 s: its part of every sequence is "
              "lost until the "
              "grid is formed again");
    EXPECT_FALSE(reply.workers(1).alive());
    const auto refused = register_model(small_spec());
    EXPECT_EQ(refused.error(), Errc::unavailable);
    EXPECT_NE(refused.error().message.find("worker 2"), std::string::npos) << refused.error().message;
    EXPECT_EQ(open(1).error(), Errc::unavailable);
    EXPECT_EQ(fork(1).error(), Errc::unavailable);
    EXPECT_EQ(close(1).error(), Errc::unavailable);

    ASSERT_TRUE(heartbeat(2, 1));
    EXPECT_TRUE(status().ready()) << "it was only slow";
}

TEST_F(ClusterTest, AWorkerThatReconnectsKeepsItsId) {
    const auto first = register_worker(101, 0).value();
    EXPECT_EQ(register_worker(101, 0)->worker(), first.worker());
    EXPECT_NE(register_worker(103, 0)->worker(), first.worker());
}

TEST_F(ClusterTest, ARestartedCoordinatorIsReadyWhenTheSameWorkersReport) {
    form_grid();
    restart();
    EXPECT_FALSE(status().ready());
    EXPECT_EQ(status().generation(), 1u);
    ASSERT_TRUE(heartbeat(1, 1)) << "its id is known, there is no need to register";
    EXPECT_EQ(register_worker(102, 1)->worker(), 2u) << "but it may";
    ASSERT_TRUE(heartbeat(2, 1));
    EXPECT_TRUE(wait_until_ready().ready());
    EXPECT_EQ(status().generation(), 1u);
    EXPECT_EQ(status().workers(0).version(), "0.0.9") << "the heartbeat says it, too";
}

TEST_F(ClusterTest, AnUnknownWorkersHeartbeatIsRefused) {
    EXPECT_EQ(heartbeat(9, 1).error(), Errc::not_found);
}

TEST_F(ClusterTest, ARegistrationThatMakesNoSenseIsRefused) {
    EXPECT_EQ(register_worker(0, 0).error(), Errc::invalid_argument);
    EXPECT_EQ(register_worker(1, 0, 0).error(), Errc::invalid_argument);
    wire::RegisterWorkerRequest request;
    request.set_incarnation(1);
    request.set_memory_bytes(1);
    request.set_endpoint("nowhere");
    EXPECT_EQ(ask<wire::RegisterWorkerReply>(MessageType::register_worker, request).error(), Errc::invalid_argument);
    EXPECT_EQ(status().workers_size(), 0);
}

TEST_F(ClusterTest, RequestsOfOtherServersAreUnsupportedAndBadBytesAreCorrupt) {
    EXPECT_EQ(ask<wire::Empty>(MessageType::occupancy, wire::Empty{}).error(), Errc::unsupported);
    const auto bad = channel->call(MessageType::close_sequence, 0, "\xff\xff", {}, deadline_in(10s));
    EXPECT_EQ(bad.error(), Errc::corrupt);
}

}  // namespace
}  // namespace kvgrid::coordinator
