// Control requests say what the caller said, replies come back as they were, and refusals keep their code and message.

#include <gtest/gtest.h>

#include "tests/unit/client/fake_cluster.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;

TEST(Control, StatusComesBackAsTheCoordinatorSaidIt) {
    FakeCluster cluster;
    Client client = cluster.connect();
    wire::StatusReply reply;
    reply.set_generation(6);
    reply.set_not_ready_because("worker 2 is silent");
    reply.set_expected_workers(4);
    reply.set_version("0.1.0");
    auto* worker = reply.add_workers();
    worker->set_worker(9);
    worker->set_rank(-1);
    worker->set_endpoint("host:1");
    worker->set_host("host");
    worker->set_process_id(77);
    worker->set_alive(true);
    worker->set_memory_bytes(1 << 20);
    worker->set_version("0.0.9");
    worker->add_models()->set_used_pages(8);
    cluster.coordinator.reply(MessageType::status, MessageType::status_reply, reply);

    ClusterStatus status = client.status().value();

    EXPECT_EQ(status.generation, Generation{6});
    EXPECT_FALSE(status.ready);
    EXPECT_EQ(status.not_ready_because, "worker 2 is silent");
    EXPECT_EQ(status.expected_workers, 4);
    EXPECT_EQ(status.version, "0.1.0");
    ASSERT_EQ(status.workers.size(), 1u);
    EXPECT_EQ(status.workers[0].worker, WorkerId{9});
    EXPECT_EQ(status.workers[0].rank, -1);
    EXPECT_EQ(status.workers[0].endpoint, "host:1");
    EXPECT_EQ(status.workers[0].host, "host");
    EXPECT_EQ(status.workers[0].process_id, 77);
    EXPECT_TRUE(status.workers[0].alive);
    EXPECT_EQ(status.workers[0].memory_bytes, 1u << 20);
    EXPECT_EQ(status.workers[0].version, "0.0.9");
    ASSERT_EQ(status.workers[0].models.size(), 1u);
    EXPECT_EQ(status.workers[0].models[0].used_pages, 8u);
}

TEST(Control, RegisteringSendsTheSpecAndTheOptions) {
    FakeCluster cluster;
    Client client = cluster.connect();
    auto model = client.register_model(test_spec(), {.grid = {2, 1}, .pool_bytes_per_worker = 4096});

    ASSERT_TRUE(model) << model.error().to_string();
    EXPECT_EQ(model->id, ModelId{3});
    EXPECT_EQ(model->spec, test_spec());
    EXPECT_EQ(model->grid, (GridShape{2, 1}));
    EXPECT_EQ(model->pool_bytes_per_worker, 4096u);
    auto request = cluster.coordinator.last_message<wire::RegisterModelRequest>(MessageType::register_model);
    EXPECT_EQ(request.head_parts(), 2);
    EXPECT_EQ(request.sequence_parts(), 1);
}

TEST(Control, ASpecThatBreaksARuleIsNotSent) {
    FakeCluster cluster;
    Client client = cluster.connect();
    ModelSpec spec = test_spec();
    spec.head_dim = 33;

    EXPECT_EQ(client.register_model(spec).error(), Errc::invalid_argument);
    EXPECT_EQ(cluster.coordinator.count(MessageType::register_model), 0);
}

TEST(Control, ModelsAreListedAndASpecThatIsNoneIsCorrupt) {
    FakeCluster cluster;
    Client client = cluster.connect();
    wire::ListModelsReply reply;
    reply.add_models()->set_model(3);
    reply.mutable_models(0)->set_spec_json(to_json(test_spec()));
    cluster.coordinator.reply(MessageType::list_models, MessageType::list_models_reply, reply);
    auto models = client.models();

    ASSERT_TRUE(models) << models.error().to_string();
    ASSERT_EQ(models->size(), 1u);
    EXPECT_EQ(models->front().spec, test_spec());

    reply.mutable_models(0)->set_spec_json("{}");
    cluster.coordinator.reply(MessageType::list_models, MessageType::list_models_reply, reply);
    EXPECT_EQ(client.models().error(), Errc::corrupt);
}

TEST(Control, SequencesAreListedByModel) {
    FakeCluster cluster;
    Client client = cluster.connect();
    wire::ListSequencesReply reply;
    reply.add_sequences()->set_sequence(11);
    reply.add_sequences()->set_sequence(13);
    cluster.coordinator.reply(MessageType::list_sequences, MessageType::list_sequences_reply, reply);

    EXPECT_EQ(client.sequences({3}).value(), (std::vector<SequenceId>{{11}, {13}}));
    EXPECT_EQ(cluster.coordinator.last_message<wire::ListSequencesRequest>(MessageType::list_sequences).model(), 3u);
}

TEST(Control, AllPagesOfTheSequencesAreAskedFor) {
    FakeCluster cluster;
    Client client = cluster.connect();
    cluster.coordinator.on(MessageType::list_sequences, [](const comm::Frame& frame, comm::Responder responder) {
        const auto after = comm::unpack<wire::ListSequencesRequest>(frame).value().after();
        wire::ListSequencesReply reply;
        auto& entry = *reply.add_sequences();
        entry.set_sequence(after + 1);
        entry.set_tenant("acme");
        entry.set_parent(after);
        reply.set_more(after < 2);
        responder.reply(MessageType::list_sequences_reply, comm::pack(reply));
    });

    EXPECT_EQ(client.sequences().value(), (std::vector<SequenceId>{{1}, {2}, {3}}));
    const SequencePage page = client.list_sequences({.after = {1}, .limit = 1}).value();
    EXPECT_TRUE(page.more);
    ASSERT_EQ(page.sequences.size(), 1u);
    EXPECT_EQ(page.sequences[0].id, SequenceId{2});
    EXPECT_EQ(page.sequences[0].tenant, "acme");
    EXPECT_EQ(page.sequences[0].parent, SequenceId{1});
    EXPECT_EQ(cluster.coordinator.last_message<wire::ListSequencesRequest>(MessageType::list_sequences).limit(), 1u);
}

TEST(Control, ASequenceOfAnyoneIsClosedById) {
    FakeCluster cluster;
    Client client = cluster.connect();

    EXPECT_TRUE(client.close({42}));
    EXPECT_EQ(cluster.coordinator.last_message<wire::SequenceRequest>(MessageType::close_sequence).sequence(), 42u);
}

TEST(Control, OccupancyComesBackAsTheLeadSaidIt) {
    FakeCluster cluster;
    Client client = cluster.connect();
    wire::OccupancyReply reply;
    reply.set_operations(8);
    reply.set_join_bytes(9);
    reply.set_layer_calls(10);
    reply.set_merged_layer_calls(4);
    auto* worker = reply.add_workers();
    worker->set_worker(2);
    worker->set_rank(1);
    auto* pool = worker->add_models();
    pool->set_model(3);
    pool->set_page_bytes(100);
    pool->set_capacity_pages(10);
    pool->set_free_pages(5);
    pool->set_used_pages(3);
    pool->set_reserved_pages(2);
    pool->set_shared_pages(1);
    pool->set_sequences(4);
    pool->set_stored_tokens(150);
    cluster.lead.reply(MessageType::occupancy, MessageType::occupancy_reply, reply);

    GridOccupancy grid = client.occupancy().value();

    EXPECT_EQ(grid.operations, 8u);
    EXPECT_EQ(grid.join_bytes, 9u);
    EXPECT_EQ(grid.layer_calls, 10u);
    EXPECT_EQ(grid.merged_layer_calls, 4u);
    ASSERT_EQ(grid.workers.size(), 1u);
    EXPECT_EQ(grid.workers[0].rank, 1);
    ASSERT_EQ(grid.workers[0].models.size(), 1u);
    const ModelOccupancy& model = grid.workers[0].models[0];
    EXPECT_EQ(model.model, ModelId{3});
    EXPECT_EQ(model.page_bytes, 100u);
    EXPECT_EQ(model.free_pages + model.used_pages + model.reserved_pages, model.capacity_pages);
    EXPECT_EQ(model.shared_pages, 1u);
    EXPECT_EQ(model.sequences, 4u);
    EXPECT_EQ(model.stored_tokens, 150u);
    EXPECT_EQ(cluster.lead.last(MessageType::occupancy).header.generation, 5u);
}

TEST(Control, ARefusalKeepsItsCodeAndMessage) {
    FakeCluster cluster;
    Client client = cluster.connect();
    for (Errc code : {Errc::already_exists, Errc::no_room, Errc::busy, Errc::peer_lost, Errc::internal}) {
        Error error{code, "needs 6 pages, 2 are free"};
        cluster.coordinator.fail(MessageType::register_model, error);
        EXPECT_EQ(client.register_model(test_spec()).error().to_string(), error.to_string());
    }
}

TEST(Control, AnAnswerOfAnotherTypeIsCorrupt) {
    FakeCluster cluster;
    Client client = cluster.connect();
    cluster.coordinator.reply(MessageType::list_models, MessageType::empty, wire::Empty());

    EXPECT_EQ(client.models().error(), Errc::corrupt);
}

TEST(Control, ACallEndsByItsDeadline) {
    FakeCluster cluster;
    Client client = cluster.connect(200ms);
    cluster.coordinator.hang(MessageType::register_model);

    EXPECT_EQ(client.register_model(test_spec()).error(), Errc::deadline_exceeded);
}

}  // namespace
}  // namespace kvgrid
