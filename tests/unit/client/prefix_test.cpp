// What a client says of prefixes goes to the coordinator as it is; and a call that is refused for want of pages is made again for as long as the
// cluster has kept sequences to give up.

#include <gtest/gtest.h>

#include <atomic>

#include "tests/unit/client/fake_cluster.h"

namespace kvgrid {
namespace {

using comm::MessageType;

PrefixHash name(int of) {
    PrefixHash hash{};
    hash.back() = static_cast<std::byte>(of);
    return hash;
}

struct Prefix : testing::Test {
    // The coordinator has so many to give up; an answer to `type` is no_room until all of them are.
    void keep_room_until_given_up(FakeServer& server, MessageType type, FakeServer::Answer then) {
        cluster.coordinator.on(MessageType::give_up_prefix, [this](const comm::Frame&, comm::Responder responder) {
            if (kept == 0) return responder.fail({Errc::not_found, "no prefix is kept"});
            --kept;
            responder.reply(MessageType::empty, comm::pack(wire::Empty()));
        });
        server.on(type, [this, then](const comm::Frame& frame, comm::Responder responder) {
            if (kept > needed) return responder.fail({Errc::no_room, "needs 6 pages"});
            then(frame, std::move(responder));
        });
    }
    Result<Step> begin() {
        const StepPart part{&sequence, 3};
        return client.begin({&part, 1});
    }

    FakeCluster cluster;
    Client client = cluster.connect();
    RegisteredModel model = client.register_model(test_spec()).value();
    Sequence sequence = client.open(model).value();
    std::atomic<int> kept = 3;
    std::atomic<int> needed = 1;
};

TEST_F(Prefix, OpeningSendsTheNamesAndAnswersHowManyTokensAreThere) {
    wire::SequenceReply reply;
    reply.set_sequence(20);
    reply.set_prefix_tokens(64);
    cluster.coordinator.reply(MessageType::open_sequence, MessageType::sequence_reply, reply);
    const Sequence opened = client.open(model, {.prefix = {name(1), name(2)}}).value();

    EXPECT_EQ(opened.prefix_length(), 64);
    EXPECT_EQ(sequence.prefix_length(), 0);
    const auto request = cluster.coordinator.last_message<wire::OpenSequenceRequest>(MessageType::open_sequence);
    ASSERT_EQ(request.prefix_size(), 2);
    EXPECT_EQ(request.prefix(1), std::string(31, '\0') + '\2');
}

TEST_F(Prefix, KeepingSendsTheNames) {
    cluster.coordinator.reply(MessageType::keep_sequence, MessageType::empty, wire::Empty());
    const std::vector<PrefixHash> names{name(7)};
    ASSERT_TRUE(sequence.keep(names));
    const auto request = cluster.coordinator.last_message<wire::KeepSequenceRequest>(MessageType::keep_sequence);
    EXPECT_EQ(request.sequence(), sequence.id().value);
    ASSERT_EQ(request.prefix_size(), 1);
    EXPECT_EQ(request.prefix(0), std::string(31, '\0') + '\7');
}

TEST_F(Prefix, AStepWithoutRoomIsBegunAgainWhenKeptOnesWereGivenUpAndNoMoreThanItTakes) {
    keep_room_until_given_up(cluster.lead, MessageType::begin_step, [](const comm::Frame&, comm::Responder responder) {
        wire::BeginStepReply reply;
        reply.set_step(7);
        reply.add_lengths(0);
        responder.reply(MessageType::begin_step_reply, comm::pack(reply));
    });
    EXPECT_TRUE(begin());
    EXPECT_EQ(kept, needed);
    EXPECT_EQ(cluster.coordinator.last_message<wire::GiveUpPrefixRequest>(MessageType::give_up_prefix).model(), 3u);
}

TEST_F(Prefix, AnOpeningWithoutRoomIsTriedAgain) {
    keep_room_until_given_up(cluster.coordinator, MessageType::open_sequence,
                             [](const comm::Frame&, comm::Responder responder) {
                                 wire::SequenceReply reply;
                                 reply.set_sequence(20);
                                 responder.reply(MessageType::sequence_reply, comm::pack(reply));
                             });
    EXPECT_TRUE(client.open(model, {.expected_tokens = 1000}));
    EXPECT_EQ(kept, needed);
}

TEST_F(Prefix, WhereNothingIsLeftToGiveUpTheRefusalStands) {
    needed = -1;
    keep_room_until_given_up(cluster.lead, MessageType::begin_step, {});
    const auto refused = begin();
    EXPECT_EQ(refused.error(), Errc::no_room);
    EXPECT_EQ(refused.error().message, "needs 6 pages");
    EXPECT_EQ(kept, 0);
    EXPECT_EQ(cluster.lead.count(MessageType::begin_step), 4);
}

TEST_F(Prefix, ACoordinatorThatIsAwayLeavesTheRefusal) {
    cluster.lead.fail(MessageType::begin_step, {Errc::no_room, "needs 6 pages"});
    cluster.coordinator.stop();
    EXPECT_EQ(begin().error().message, "needs 6 pages");
    cluster.coordinator.start();
}

}  // namespace
}  // namespace kvgrid
