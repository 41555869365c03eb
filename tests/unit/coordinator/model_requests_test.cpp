// A model is in the catalogue exactly when the grid holds it, whatever the lead answers and whenever the coordinator dies; a new
// generation gets all models again before it is ready.

#include <thread>

#include "tests/unit/coordinator/cluster_fixture.h"

namespace kvgrid::coordinator {
namespace {

ModelSpec spec_named(std::string name) {
    ModelSpec spec = small_spec();
    spec.name = std::move(name);
    return spec;
}

class ModelRequests : public ClusterTest {
  protected:
    ModelRequests() { form_grid(); }
};

TEST_F(ModelRequests, AModelIsPlacedAddedToTheGridAndListed) {
    const auto model = register_model(small_spec(), 8 << 20);
    ASSERT_TRUE(model) << model.error().to_string();
    EXPECT_EQ(model->head_parts(), 2);
    EXPECT_EQ(model->sequence_parts(), 1);
    EXPECT_EQ(model->pool_bytes_per_worker(), 8u << 20);

    const auto added = lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 1);
    ASSERT_EQ(added.size(), 1u);
    EXPECT_EQ(added[0].model(), model->model());
    EXPECT_EQ(added[0].head_parts(), 2);
    EXPECT_EQ(added[0].pool_bytes_per_worker(), 8u << 20);
    EXPECT_EQ(parse_model_spec(added[0].spec_json()).value(), small_spec());
    EXPECT_EQ(lead.generations(MessageType::grid_add_model), std::vector<std::uint64_t>{1});
    EXPECT_EQ(model_count(), 1);
}

TEST_F(ModelRequests, WithoutAWishItGetsAllThatOtherModelsLeft) {
    ASSERT_TRUE(register_model(spec_named("a"), kWorkerMemory / 4));
    EXPECT_EQ(register_model(spec_named("b"))->pool_bytes_per_worker(), kWorkerMemory / 4 * 3);
    EXPECT_EQ(register_model(spec_named("c")).error(), Errc::no_room);
    EXPECT_EQ(model_count(), 2);
}

TEST_F(ModelRequests, RegisteringItAgainAnswersWhatIsThere) {
    const auto model = register_model(small_spec()).value();
    const auto again = register_model(small_spec()).value();
    EXPECT_EQ(again.model(), model.model());
    EXPECT_EQ(again.pool_bytes_per_worker(), model.pool_bytes_per_worker());
    EXPECT_EQ(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 1).size(), 1u);
}

TEST_F(ModelRequests, TheSameNameWithAnotherSpecOrSplitIsTaken) {
    ASSERT_TRUE(register_model(small_spec()));
    ModelSpec other = small_spec();
    other.scale = 0.5;
    EXPECT_EQ(register_model(other).error(), Errc::already_exists);
    EXPECT_EQ(register_model(small_spec(), 0, 20s, {1, 2}).error(), Errc::already_exists);
}

TEST_F(ModelRequests, WhatTheLeadRefusesIsNotInTheCatalogue) {
    lead.refuse(MessageType::grid_add_model, {Errc::no_room, "worker 2 has no memory"});
    const auto refused = register_model(small_spec());
    EXPECT_EQ(refused.error(), Errc::no_room);
    EXPECT_EQ(refused.error().message, "worker 2 has no memory");
    EXPECT_EQ(model_count(), 0);

    lead.behave(MessageType::grid_add_model);
    EXPECT_GT(register_model(small_spec())->model(), 1u) << "the first one's id is not used again";
}

TEST_F(ModelRequests, AShapeOrSpecThatMakesNoSenseDoesNotReachTheLead) {
    EXPECT_EQ(register_model(small_spec(), 0, 20s, {3, 1}).error(), Errc::invalid_argument);
    wire::RegisterModelRequest request;
    request.set_spec_json("{}");
    EXPECT_EQ(ask<wire::ModelReply>(MessageType::register_model, request).error(), Errc::invalid_argument);
    EXPECT_TRUE(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 0).empty());
}

TEST_F(ModelRequests, ALeadThatDoesNotAnswerIsADeadlineAndTheModelIsSettledLater) {
    lead.keep_silent(MessageType::grid_add_model);
    EXPECT_EQ(register_model(small_spec(), 0, 100ms).error(), Errc::deadline_exceeded);
    EXPECT_EQ(model_count(), 0);
    EXPECT_TRUE(status().ready()) << "it keeps nobody from anything";

    // The coordinator's wait for the lead ends a moment after its client's: who asks before shares it.
    std::this_thread::sleep_for(50ms);
    lead.behave(MessageType::grid_add_model);
    const auto model = register_model(small_spec());
    ASSERT_TRUE(model) << model.error().to_string();
    const auto added = lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 2);
    EXPECT_EQ(added.front().model(), added.back().model()) << "the lead may hold it, and its memory, by this id";
    EXPECT_EQ(model_count(), 1);
}

TEST_F(ModelRequests, AnUnansweredModelThatIsThenRefusedIsGone) {
    lead.keep_silent(MessageType::grid_add_model);
    EXPECT_EQ(register_model(small_spec(), 0, 100ms).error(), Errc::deadline_exceeded);
    lead.refuse(MessageType::grid_add_model, {Errc::no_room, "none"});
    const auto end = deadline_in(10s);
    const auto tries = [&] { return lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 0).size(); };
    while (tries() < 2 && std::chrono::steady_clock::now() < end) {
        pass(1100ms);  // the time after which it is tried again
        heartbeats();
    }
    lead.behave(MessageType::grid_add_model);
    ModelSpec other = small_spec();
    other.scale = 0.5;
    auto registered = register_model(other);  // the name is free as soon as the refusal has come
    while (!registered && std::chrono::steady_clock::now() < end) registered = register_model(other);
    EXPECT_TRUE(registered) << registered.error().to_string();
}

TEST_F(ModelRequests, TwoWhoRegisterTheSameModelAtOnceGetTheSame) {
    lead.keep_silent(MessageType::grid_add_model);
    auto first = std::async(std::launch::async, [&] { return register_model(small_spec()); });
    ASSERT_EQ(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 1).size(), 1u);
    std::promise<Result<comm::Frame>> second;
    wire::RegisterModelRequest request;
    request.set_spec_json(to_json(small_spec()));
    channel->call(MessageType::register_model, 0, comm::pack(request), {}, deadline_in(20s),
                  [&](Result<comm::Frame> answer) { second.set_value(std::move(answer)); });
    (void)status();  // the second has been read when this is answered
    lead.speak();

    const auto one = first.get();
    const auto other = second.get_future().get();
    ASSERT_TRUE(one) << one.error().to_string();
    ASSERT_TRUE(other) << other.error().to_string();
    EXPECT_EQ(comm::unpack<wire::ModelReply>(*other)->model(), one->model());
    EXPECT_EQ(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 1).size(), 1u);
}

TEST_F(ModelRequests, ANewGenerationGetsAllModelsBeforeItIsReady) {
    const auto a = register_model(spec_named("a"), 8 << 20).value();
    const auto b = register_model(spec_named("b"), 4 << 20).value();
    const auto sequence = open(a.model()).value();
    EXPECT_EQ(sequences(), std::vector<std::uint64_t>{sequence.sequence()});

    pass(2000ms);  // both workers die
    lead.keep_silent(MessageType::grid_add_model);
    form_grid(201);
    EXPECT_EQ(status().generation(), 2u);
    lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 3);
    EXPECT_EQ(status().not_ready_because(), "model a is being added to generation 2");
    EXPECT_TRUE(sequences().empty()) << "they were in the memory of the old grid";
    EXPECT_EQ(open(a.model()).error(), Errc::unavailable);

    lead.speak();
    wait_until_ready();
    const auto added = lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 4);
    ASSERT_EQ(added.size(), 4u);
    EXPECT_EQ(added[2].model(), a.model());
    EXPECT_EQ(added[2].pool_bytes_per_worker(), 8u << 20);
    EXPECT_EQ(added[3].model(), b.model());
    EXPECT_EQ(lead.generations(MessageType::grid_add_model), (std::vector<std::uint64_t>{1, 1, 2, 2}));
    EXPECT_GT(open(a.model())->sequence(), sequence.sequence());
}

TEST_F(ModelRequests, AModelThatTheNewGridDoesNotTakeIsTheReasonWhyItIsNotReady) {
    ASSERT_TRUE(register_model(small_spec()));
    restart();
    lead.change_held([](auto& held) { held.Clear(); });
    lead.refuse(MessageType::grid_add_model, {Errc::no_room, "worker 2 has 5 bytes"});
    heartbeats();
    lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 2);
    std::string why = status().not_ready_because();
    for (const auto end = deadline_in(10s);
         why.find("5 bytes") == why.npos && std::chrono::steady_clock::now() < end;) {
        why = status().not_ready_because();
    }
    EXPECT_EQ(why, "model small could not be added to generation 1 (trying again): no_room: worker 2 has 5 bytes");
    EXPECT_EQ(model_count(), 1) << "it is not dropped for that";

    lead.refuse(MessageType::grid_add_model, {Errc::already_exists, "it is here"});
    pass(1100ms);
    wait_until_ready();
}

TEST_F(ModelRequests, AGridOfAnotherSizeThanAModelIsSplitForIsNotReady) {
    ASSERT_TRUE(register_model(small_spec()));
    restart(1);
    pass(2000ms);  // both workers die
    const auto worker = register_worker(201, 0).value();
    EXPECT_EQ(worker.membership().generation(), 2u);
    ASSERT_TRUE(heartbeat(worker.worker(), 2));
    EXPECT_EQ(status().not_ready_because(),
              "model small is split 2 x 1 and the grid has 1 workers: start with 2 workers, or with an empty state "
              "directory");
    EXPECT_EQ(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 1).size(), 1u);
}

}  // namespace
}  // namespace kvgrid::coordinator
