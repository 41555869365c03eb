// connect() ends with a client of a cluster that is ready, or by its deadline with the reason why there is none.

#include <gtest/gtest.h>

#include "tests/unit/client/fake_cluster.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;

TEST(Connect, FindsAClusterThatIsReady) {
    FakeCluster cluster;

    EXPECT_TRUE(Client::connect(cluster.coordinator.endpoint()));
}

TEST(Connect, AsksUntilTheClusterIsReady) {
    FakeCluster cluster;
    auto asked = std::make_shared<std::atomic<int>>(0);
    cluster.coordinator.on(MessageType::status, [&cluster, asked](const comm::Frame&, comm::Responder responder) {
        wire::StatusReply reply;
        reply.set_ready(++*asked == 3);
        if (reply.ready()) reply.set_lead_endpoint(cluster.lead.endpoint());
        responder.reply(MessageType::status_reply, comm::pack(reply));
    });

    EXPECT_TRUE(Client::connect(cluster.coordinator.endpoint(), {.timeout = 10s}));
    EXPECT_EQ(*asked, 3);
}

TEST(Connect, SaysWhyTheClusterWasNotReadyInTime) {
    FakeCluster cluster;
    cluster.set_status(0, "");
    auto client = Client::connect(cluster.coordinator.endpoint(), {.timeout = 100ms});

    ASSERT_EQ(client.error(), Errc::unavailable);
    EXPECT_NE(client.error().message.find("waiting for worker 2 of 3"), std::string::npos) << client.error().message;
}

TEST(Connect, DoesNotWaitForAClusterWhoseStatusIsWanted) {
    FakeCluster cluster;
    cluster.set_status(0, "");
    Client client = Client::connect(cluster.coordinator.endpoint(), {.wait_until_ready = false}).value();

    EXPECT_FALSE(client.status().value().ready);
}

TEST(Connect, SaysThatNobodyAnswered) {
    FakeCluster cluster;
    cluster.coordinator.stop();
    auto client = Client::connect(cluster.coordinator.endpoint(), {.timeout = 100ms});

    ASSERT_EQ(client.error(), Errc::unavailable);
    EXPECT_NE(client.error().message.find(cluster.coordinator.endpoint()), std::string::npos) << client.error().message;
}

TEST(Connect, EndsInTimeWhereTheCoordinatorIsSilent) {
    FakeCluster cluster;
    cluster.coordinator.hang(MessageType::status);
    auto begin = std::chrono::steady_clock::now();

    EXPECT_EQ(Client::connect(cluster.coordinator.endpoint(), {.timeout = 100ms}).error(), Errc::unavailable);
    EXPECT_GE(std::chrono::steady_clock::now() - begin, 100ms);
}

TEST(Connect, ComesBackWhenTheCoordinatorStartsLate) {
    FakeCluster cluster;
    cluster.coordinator.stop();
    auto client = std::async(std::launch::async,
                             [&] { return Client::connect(cluster.coordinator.endpoint(), {.timeout = 10s}); });
    cluster.coordinator.start();

    EXPECT_TRUE(client.get());
}

TEST(Connect, RefusesAnEndpointOrATimeoutThatIsNone) {
    EXPECT_EQ(Client::connect("nonsense").error(), Errc::invalid_argument);
    EXPECT_EQ(Client::connect("127.0.0.1:1", {.timeout = 0ms}).error(), Errc::invalid_argument);
}

TEST(Connect, RefusesALeadThatIsNoEndpoint) {
    FakeCluster cluster;
    cluster.set_status(5, "nonsense");

    EXPECT_EQ(Client::connect(cluster.coordinator.endpoint(), {.timeout = 1s}).error(), Errc::corrupt);
}

TEST(Connect, PassesOnAnErrorThatWaitingWouldNotMend) {
    FakeCluster cluster;
    cluster.coordinator.fail(MessageType::status, {Errc::unsupported, "too old"});

    EXPECT_EQ(Client::connect(cluster.coordinator.endpoint(), {.timeout = 10s}).error(), (Errc::unsupported));
}

}  // namespace
}  // namespace kvgrid
