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
    const auto ready = wait_until_ready();
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
    EXPECT_EQ(
        reply.not_ready_because(),
        "generation 1 is lost, with all its sequences: worker 2 (rank 1, pid 102 on host x) has not been heard of "
        "for 2.0 s; 1 of the 2 workers that the next one needs are here");
    EXPECT_NE(heartbeat(1, 1)->membership().lost().find("worker 2"), std::string::npos) << "the survivors are told";
    EXPECT_FALSE(reply.workers(1).alive());
    const auto refused = register_model(small_spec());
    EXPECT_EQ(refused.error(), Errc::unavailable);
    EXPECT_NE(refused.error().message.find("worker 2"), std::string::npos) << refused.error().message;
    EXPECT_EQ(open(1).error(), Errc::unavailable);
    EXPECT_EQ(fork(1).error(), Errc::unavailable);
    EXPECT_EQ(close(1).error(), Errc::unavailable);

    EXPECT_EQ(heartbeat(2, 1).error(), Errc::not_found) << "it was only slow: it has to register again";
    const auto again = register_worker(102, 1).value();
    EXPECT_EQ(again.worker(), 2u);
    EXPECT_EQ(again.membership().generation(), 2u) << "and takes part in the next generation";
}

TEST_F(ClusterTest, AWorkerWhoseConnectionBreaksIsDeadSoonUnlessItComesBack) {
    form_grid();
    const auto break_connection_of_worker_2 = [&] {
        comm::Channel own(io, comm::parse_endpoint("unix:" + (directory.path() / "coordinator").string()).value());
        wire::HeartbeatRequest request;
        request.set_worker(2);
        request.set_generation(1);
        request.set_ready(true);
        ASSERT_TRUE(own.call(MessageType::heartbeat, 0, comm::pack(request), {}, deadline_in(10s)));
        ASSERT_TRUE(heartbeat(1, 1)) << "from now on the fixture's connection is worker 1's";
    };
    const auto is_suspect = [&] {
        std::promise<bool> suspect;
        io.post([&] { suspect.set_value(coordinator->membership().members()[1].connection_lost.has_value()); });
        return suspect.get_future().get();
    };
    const auto wait_until_noticed = [&] {
        for (const auto end = deadline_in(10s); !is_suspect() && std::chrono::steady_clock::now() < end;) continue;
        ASSERT_TRUE(is_suspect());
    };

    break_connection_of_worker_2();
    wait_until_noticed();
    pass(400ms);
    ASSERT_TRUE(heartbeat(2, 1)) << "it has come back in time";
    ASSERT_TRUE(heartbeat(1, 1));
    pass(400ms);
    wait_until_ready();

    break_connection_of_worker_2();
    wait_until_noticed();
    pass(500ms);
    EXPECT_FALSE(status().workers(1).alive());
    EXPECT_NE(status().not_ready_because().find("worker 2 (rank 1, pid 102 on host x) died: its connection broke"),
              std::string::npos)
        << status().not_ready_because();
}

TEST_F(ClusterTest, AGridDrainsAsOneAndTheNextOneIsFormedWithoutWhoHasLeft) {
    form_grid();
    wait_until_ready();
    const auto beat = [&](std::uint64_t worker, std::uint64_t generation, bool draining, bool drained, bool leaving) {
        wire::HeartbeatRequest request;
        request.set_worker(worker);
        request.set_generation(generation);
        request.set_ready(true);
        request.set_draining(draining);
        request.set_drained(drained);
        request.set_leaving(leaving);
        return ask<wire::HeartbeatReply>(MessageType::heartbeat, request).value();
    };
    EXPECT_FALSE(beat(2, 1, /*draining=*/false, false, false).draining());

    const auto asked = beat(2, 1, /*draining=*/true, false, false);
    EXPECT_TRUE(asked.draining());
    EXPECT_FALSE(asked.drained()) << "the lead has not said so yet";
    EXPECT_TRUE(status().workers(1).draining());
    EXPECT_EQ(status().not_ready_because(),
              "worker 2 (rank 1, pid 102 on host x) is draining: it was asked to end, and nothing new is begun");
    EXPECT_EQ(open(1).error(), Errc::unavailable);
    EXPECT_TRUE(beat(1, 1, false, /*drained=*/true, false).drained());
    EXPECT_TRUE(beat(2, 1, true, false, false).drained()) << "so worker 2 may leave";

    ASSERT_TRUE(register_worker(103, 2));
    pass(500ms);  // between two generations
    ASSERT_TRUE(heartbeat(3, 0));
    EXPECT_EQ(status().generation(), 1u) << "worker 2 is still there";
    beat(2, 1, true, false, /*leaving=*/true);
    ASSERT_TRUE(heartbeat(1, 1));
    const auto reply = status();
    EXPECT_EQ(reply.generation(), 2u);
    EXPECT_EQ(reply.workers(1).worker(), 3u);
    EXPECT_EQ(reply.workers_size(), 2) << "who has left is forgotten";
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
    EXPECT_EQ(heartbeat(1, 1).error(), Errc::not_found) << "an id alone does not say which process this is";
    EXPECT_EQ(register_worker(101, 0)->worker(), 1u);
    EXPECT_EQ(register_worker(102, 1)->worker(), 2u);
    ASSERT_TRUE(heartbeat(1, 1));
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
