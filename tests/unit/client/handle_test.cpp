// A Sequence's handle closes what it opened, once, when its life ends, however it was moved about; its calls carry the
// sequence's id and, to the lead, the generation.

#include <gtest/gtest.h>

#include "tests/unit/client/fake_cluster.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;

struct SequenceHandle : testing::Test {
    Sequence open(OpenOptions options = {}) { return client.open(model, options).value(); }
    int closed() { return cluster.coordinator.count(MessageType::close_sequence); }

    FakeCluster cluster;
    Client client = cluster.connect();
    RegisteredModel model = client.register_model(test_spec()).value();
};

TEST_F(SequenceHandle, OpeningSendsModelAndOptions) {
    Sequence sequence = open({.tenant = "lab", .expected_tokens = 1000, .window = 64, .sinks = 4});

    EXPECT_EQ(sequence.id(), SequenceId{11});
    EXPECT_EQ(sequence.model(), ModelId{3});
    auto request = cluster.coordinator.last_message<wire::OpenSequenceRequest>(MessageType::open_sequence);
    EXPECT_EQ(request.model(), 3u);
    EXPECT_EQ(request.tenant(), "lab");
    EXPECT_EQ(request.expected_tokens(), 1000);
    EXPECT_EQ(request.window(), 64);
    EXPECT_EQ(request.sinks(), 4);
}

TEST_F(SequenceHandle, IsClosedAtItsEnd) {
    { Sequence sequence = open(); }

    EXPECT_EQ(closed(), 1);
    EXPECT_EQ(cluster.coordinator.last_message<wire::SequenceRequest>(MessageType::close_sequence).sequence(), 11u);
}

TEST_F(SequenceHandle, IsClosedOnceHoweverItMoves) {
    {
        Sequence first = open();
        Sequence second = std::move(first);
        std::vector<Sequence> held;
        held.push_back(std::move(second));
        EXPECT_EQ(closed(), 0);
    }
    EXPECT_EQ(closed(), 1);
}

TEST_F(SequenceHandle, ClosesWhatItHeldWhenAnotherIsAssigned) {
    Sequence sequence = open();
    sequence = open();

    EXPECT_EQ(closed(), 1);
    EXPECT_EQ(cluster.coordinator.last_message<wire::SequenceRequest>(MessageType::close_sequence).sequence(), 11u);
    EXPECT_EQ(sequence.id(), SequenceId{12});
}

TEST_F(SequenceHandle, ClosedExplicitlyIsNotClosedAgain) {
    {
        Sequence sequence = open();
        EXPECT_TRUE(sequence.close());
    }
    EXPECT_EQ(closed(), 1);
}

TEST_F(SequenceHandle, ARefusedCloseIsTriedAgainAtItsEnd) {
    cluster.coordinator.fail(MessageType::close_sequence, {Errc::busy, "a step is open"});
    {
        Sequence sequence = open();
        EXPECT_EQ(sequence.close().error(), Errc::busy);
    }
    EXPECT_EQ(closed(), 2);
}

TEST_F(SequenceHandle, ReleasedStaysOpenAndCanBeAttachedAgain) {
    SequenceId id = open().release();
    EXPECT_EQ(closed(), 0);

    wire::InspectSequenceReply reply;
    reply.set_model(3);
    cluster.lead.reply(MessageType::inspect_sequence, MessageType::inspect_sequence_reply, reply);
    auto again = client.attach(id);
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(again->id(), id);
    EXPECT_EQ(again->model(), ModelId{3});
}

TEST_F(SequenceHandle, AttachingAsksForAModelThatThisClientHasNotSeen) {
    wire::InspectSequenceReply inspected;
    inspected.set_model(4);
    cluster.lead.reply(MessageType::inspect_sequence, MessageType::inspect_sequence_reply, inspected);
    wire::ListModelsReply models;
    cluster.coordinator.reply(MessageType::list_models, MessageType::list_models_reply, models);
    EXPECT_EQ(client.attach({42}).error(), Errc::not_found);

    models.add_models()->set_model(4);
    models.mutable_models(0)->set_spec_json(to_json(test_spec()));
    cluster.coordinator.reply(MessageType::list_models, MessageType::list_models_reply, models);
    EXPECT_TRUE(client.attach({42}));
}

TEST_F(SequenceHandle, ForkGivesASecondHandle) {
    Sequence sequence = open();
    Sequence fork = sequence.fork().value();

    EXPECT_EQ(fork.id(), SequenceId{12});
    EXPECT_EQ(cluster.coordinator.last_message<wire::SequenceRequest>(MessageType::fork_sequence).sequence(), 11u);
}

TEST_F(SequenceHandle, OutlivesItsClient) {
    {
        Sequence sequence = open();
        Client(std::move(client));  // ends here
        EXPECT_TRUE(sequence.truncate(5));
    }
    EXPECT_EQ(closed(), 1);
}

TEST_F(SequenceHandle, EndsQuicklyWhereTheCoordinatorIsGone) {
    auto begin = std::chrono::steady_clock::now();
    {
        Sequence sequence = open();
        cluster.coordinator.stop();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 8s);  // it waits 2 s, not its client's 10
}

TEST_F(SequenceHandle, TruncateAndSetWindowGoToTheLeadInItsGeneration) {
    Sequence sequence = open();
    EXPECT_TRUE(sequence.truncate(70));
    EXPECT_TRUE(sequence.set_window(128, 4));

    auto truncate = cluster.lead.last_message<wire::TruncateRequest>(MessageType::truncate);
    EXPECT_EQ(truncate.sequence(), 11u);
    EXPECT_EQ(truncate.length(), 70);
    auto window = cluster.lead.last_message<wire::SetWindowRequest>(MessageType::set_window);
    EXPECT_EQ(window.sequence(), 11u);
    EXPECT_EQ(window.window(), 128);
    EXPECT_EQ(window.sinks(), 4);
    EXPECT_EQ(cluster.lead.last(MessageType::truncate).header.generation, 5u);
}

TEST_F(SequenceHandle, InspectComesBackAsTheLeadSaidIt) {
    Sequence sequence = open();
    wire::InspectSequenceReply reply;
    reply.set_model(3);
    reply.set_length(200);
    reply.set_window(64);
    reply.set_sinks(4);
    reply.set_step_open(true);
    reply.add_pages_by_rank(8);
    reply.add_pages_by_rank(7);
    cluster.lead.reply(MessageType::inspect_sequence, MessageType::inspect_sequence_reply, reply);

    SequenceInfo info = sequence.inspect().value();

    EXPECT_EQ(info.length, 200);
    EXPECT_EQ(info.window, 64);
    EXPECT_EQ(info.sinks, 4);
    EXPECT_TRUE(info.step_open);
    EXPECT_EQ(info.pages_by_rank, (std::vector<std::uint64_t>{8, 7}));
}

TEST_F(SequenceHandle, ReadKvSplitsThePayload) {
    Sequence sequence = open();
    std::vector<std::byte> rows = filled(3 * kKvRowBytes, 1);
    rows.resize(6 * kKvRowBytes, std::byte{2});
    cluster.lead.reply(MessageType::read_kv, MessageType::read_kv_reply, wire::ReadKvReply(),
                       comm::Payload::copy_of(rows));

    KvRows kv = sequence.read_kv(1, 64, 3).value();

    EXPECT_EQ(kv.k, filled(3 * kKvRowBytes, 1));
    EXPECT_EQ(kv.v, filled(3 * kKvRowBytes, 2));
    auto request = cluster.lead.last_message<wire::ReadKvRequest>(MessageType::read_kv);
    EXPECT_EQ(request.sequence(), 11u);
    EXPECT_EQ(request.layer(), 1);
    EXPECT_EQ(request.first_token(), 64);
    EXPECT_EQ(request.token_count(), 3);
    EXPECT_EQ(sequence.read_kv(1, 64, 4).error(), Errc::corrupt);  // the answer is of 3
}

TEST_F(SequenceHandle, ReadKvOfALayerWithoutKvIsNotSent) {
    Sequence sequence = open();

    for (int layer : {-1, 2, 3}) EXPECT_EQ(sequence.read_kv(layer, 0, 1).error(), Errc::invalid_argument) << layer;
    EXPECT_EQ(sequence.read_kv(0, -1, 1).error(), Errc::invalid_argument);
    EXPECT_EQ(sequence.read_kv(0, 0, -1).error(), Errc::invalid_argument);
    EXPECT_EQ(cluster.lead.count(MessageType::read_kv), 0);
}

}  // namespace
}  // namespace kvgrid
