// When connections break or the membership changes, reads find their way to the new lead by themselves before their
// deadline; what might have changed something is sent once, and the call after it finds the new lead.

#include <gtest/gtest.h>

#include "tests/unit/client/fake_cluster.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;

struct Recovery : testing::Test {
    Recovery() {
        for (FakeServer* each : {&cluster.lead, &other_lead}) {
            each->reply(MessageType::inspect_sequence, MessageType::inspect_sequence_reply,
                        wire::InspectSequenceReply());
            each->reply(MessageType::truncate, MessageType::empty, wire::Empty());
        }
    }
    void form_generation_6() { cluster.set_status(6, other_lead.endpoint()); }

    FakeCluster cluster;
    FakeServer other_lead;
    Client client = cluster.connect();
    RegisteredModel model = client.register_model(test_spec()).value();
    Sequence sequence = client.open(model).value();
};

TEST_F(Recovery, AReadFollowsTheGeneration) {
    EXPECT_TRUE(sequence.inspect());
    form_generation_6();
    cluster.lead.fail(MessageType::inspect_sequence, {Errc::stale_generation, "this is generation 6"});

    EXPECT_TRUE(sequence.inspect());

    EXPECT_EQ(other_lead.count(MessageType::inspect_sequence), 1);
    EXPECT_EQ(other_lead.last(MessageType::inspect_sequence).header.generation, 6u);
}

TEST_F(Recovery, AReadFollowsALeadThatDied) {
    EXPECT_TRUE(sequence.inspect());
    form_generation_6();
    cluster.lead.stop();

    EXPECT_TRUE(sequence.inspect());
    EXPECT_EQ(other_lead.count(MessageType::inspect_sequence), 1);
}

TEST_F(Recovery, AReadIsRepeatedWhenItsConnectionBreaks) {
    cluster.lead.hang(MessageType::inspect_sequence);
    auto read = std::async(std::launch::async, [&] { return sequence.inspect(); });
    cluster.lead.wait_for(MessageType::inspect_sequence, 1);
    cluster.lead.stop();
    cluster.lead.reply(MessageType::inspect_sequence, MessageType::inspect_sequence_reply,
                       wire::InspectSequenceReply());
    cluster.lead.start();

    EXPECT_TRUE(read.get());
}

TEST_F(Recovery, ACallToALeadThatTheCoordinatorFindsDeadEndsAndNamesIt) {
    cluster.lead.hang(MessageType::truncate);
    auto call = std::async(std::launch::async, [&] { return sequence.truncate(0); });
    cluster.lead.wait_for(MessageType::truncate, 1);
    wire::StatusReply status;
    status.set_generation(5);
    status.set_not_ready_because("worker 9 (rank 0, pid 77 on host x) has not been heard of for 2.0 s");
    cluster.coordinator.reply(MessageType::status, MessageType::status_reply, status);
    EXPECT_EQ(call.wait_for(1s), std::future_status::timeout) << "not ready is not dead";
    status.add_workers()->set_worker(cluster.kLeadWorker);
    cluster.coordinator.reply(MessageType::status, MessageType::status_reply, status);

    const Error error = call.get().error();
    EXPECT_EQ(error, Errc::peer_lost);
    EXPECT_EQ(error.message, "worker 9 (rank 0, pid 77 on host x) has not been heard of for 2.0 s");
}

TEST_F(Recovery, ACallWhoseLeadDiesNamesIt) {
    cluster.lead.hang(MessageType::truncate);
    auto call = std::async(std::launch::async, [&] { return sequence.truncate(0); });
    cluster.lead.wait_for(MessageType::truncate, 1);
    cluster.lead.stop();

    const Error error = call.get().error();
    EXPECT_EQ(error, Errc::unavailable);
    EXPECT_NE(error.message.find("worker 9 (rank 0, pid 77 on host x), which leads the grid: "), error.message.npos)
        << error.message;
    EXPECT_NE(error.message.find("the connection broke"), error.message.npos) << error.message;
}

TEST_F(Recovery, AReadWaitsForAGridThatIsBeingFormed) {
    cluster.set_status(5, "");
    cluster.lead.stop();
    auto read = std::async(std::launch::async, [&] { return sequence.inspect(); });
    cluster.coordinator.wait_for(MessageType::status, 2);
    form_generation_6();

    EXPECT_TRUE(read.get());
}

TEST_F(Recovery, AReadOfASilentLeadMovesOnWhenAnotherIsFormed) {
    cluster.lead.hang(MessageType::inspect_sequence);
    auto read = std::async(std::launch::async, [&] { return sequence.inspect(); });
    cluster.lead.wait_for(MessageType::inspect_sequence, 1);
    form_generation_6();

    EXPECT_TRUE(read.get());
    EXPECT_EQ(other_lead.count(MessageType::inspect_sequence), 1);
}

TEST_F(Recovery, AReadThatNobodyAnswersEndsByItsDeadline) {
    Client hasty = cluster.connect(300ms);
    cluster.lead.hang(MessageType::occupancy);

    EXPECT_EQ(hasty.occupancy().error(), Errc::deadline_exceeded);
    cluster.lead.fail(MessageType::occupancy, {Errc::stale_generation, "always"});
    EXPECT_EQ(hasty.occupancy().error(), Errc::stale_generation);
    EXPECT_GT(cluster.lead.count(MessageType::occupancy), 2);
}

TEST_F(Recovery, AChangeIsSentOnceAndTheNextOneFindsTheNewLead) {
    form_generation_6();
    cluster.lead.fail(MessageType::truncate, {Errc::stale_generation, "this is generation 6"});

    EXPECT_EQ(sequence.truncate(5).error(), Errc::stale_generation);
    EXPECT_EQ(other_lead.count(MessageType::truncate), 0);
    EXPECT_TRUE(sequence.truncate(5));
    EXPECT_EQ(other_lead.count(MessageType::truncate), 1);
    EXPECT_EQ(cluster.lead.count(MessageType::truncate), 1);
}

TEST_F(Recovery, AChangeWhoseConnectionBreaksIsUnavailableAndNotRepeated) {
    cluster.lead.hang(MessageType::begin_step);
    StepPart part{&sequence, 1};
    auto step = std::async(std::launch::async, [&] { return client.begin({&part, 1}).error(); });
    cluster.lead.wait_for(MessageType::begin_step, 1);
    cluster.lead.stop();
    cluster.lead.start();

    EXPECT_EQ(step.get(), Errc::unavailable);
    EXPECT_TRUE(sequence.inspect());  // a later call has gone through: a repeated begin would have come before it
    EXPECT_EQ(cluster.lead.count(MessageType::begin_step), 1);
}

TEST_F(Recovery, ACommitToASilentLeadEndsWhenAnotherGenerationIsFormed) {
    cluster.lead.hang(MessageType::commit_step);
    StepPart part{&sequence, 1};
    Step step = client.begin({&part, 1}).value();
    auto commit = std::async(std::launch::async, [&] { return step.commit(); });
    cluster.lead.wait_for(MessageType::commit_step, 1);
    form_generation_6();

    EXPECT_EQ(commit.get().error(), Errc::stale_generation);
    EXPECT_EQ(other_lead.count(MessageType::commit_step), 0);
}

TEST_F(Recovery, StepsGoOnWhileTheCoordinatorIsGone) {
    StepPart part{&sequence, 1};
    Step step = client.begin({&part, 1}).value();
    cluster.coordinator.stop();

    EXPECT_TRUE(step.layer(2, {filled(kQueryRowBytes, 1), {}, {}}));
    EXPECT_TRUE(step.commit());
    cluster.coordinator.start();
}

TEST_F(Recovery, ControlCallsReachACoordinatorThatWasRestarted) {
    cluster.coordinator.stop();
    cluster.coordinator.start();

    EXPECT_TRUE(client.status());
    EXPECT_TRUE(client.open(model));
}

TEST_F(Recovery, AnOpenWhoseConnectionBreaksIsNotRepeated) {
    cluster.coordinator.hang(MessageType::open_sequence);
    int before = cluster.coordinator.count(MessageType::open_sequence);
    auto open = std::async(std::launch::async, [&] { return client.open(model).error(); });
    cluster.coordinator.wait_for(MessageType::open_sequence, before + 1);
    cluster.coordinator.stop();
    cluster.coordinator.start();

    EXPECT_EQ(open.get(), Errc::unavailable);
    EXPECT_TRUE(client.status());
    EXPECT_EQ(cluster.coordinator.count(MessageType::open_sequence), before + 1);
}

}  // namespace
}  // namespace kvgrid
