// A coordinator that is started again brings its catalogue and the grid to agree before it takes requests: whatever the old one was doing
// when it was killed, and whatever happened to either since. A FakeLead stands for the grid and can be changed behind its back.

#include "tests/unit/coordinator/cluster_fixture.h"

namespace kvgrid::coordinator {
namespace {

class Restart : public ClusterTest {
  protected:
    Restart() {
        form_grid();
        wait_until_ready();
        model = register_model(small_spec(), 8 << 20).value().model();
    }

    void restart_and_settle() {
        restart();
        heartbeats();
        wait_until_ready();
    }

    // Sends what is never answered: the coordinator is killed with the request under way.
    void begin(MessageType type, const google::protobuf::MessageLite& message) {
        channel->call(type, 0, comm::pack(message), {}, deadline_in(20s), [](Result<comm::Frame>) {});
    }
    wire::OpenSequenceRequest open_request() const {
        wire::OpenSequenceRequest request;
        request.set_model(model);
        return request;
    }

    // What is left for the grid to close is closed in the background.
    void expect_agreement() {
        const auto end = deadline_in(10s);
        const auto agrees = [&] {
            const auto held = lead.held();
            return static_cast<std::size_t>(held.sequences_size()) == sequences().size() &&
                   catalogued_sequence_count() == sequences().size() && held.models_size() == model_count();
        };
        while (!agrees() && std::chrono::steady_clock::now() < end) {
            pass(100ms);
            heartbeats();
        }
        EXPECT_TRUE(agrees()) << lead.held().ShortDebugString();
    }

    std::uint64_t model = 0;
};

TEST_F(Restart, WhatAgreesStaysAndTheGenerationGoesOn) {
    const auto kept = open(model).value().sequence();
    restart_and_settle();
    EXPECT_EQ(status().generation(), 1u);
    EXPECT_EQ(status().reconciliations(), 1u);
    EXPECT_EQ(status().differences(), 0u);
    EXPECT_EQ(sequences(), std::vector<std::uint64_t>{kept});
    EXPECT_TRUE(lead.wait_for<wire::GridClose>(MessageType::grid_close, 0).empty());
    EXPECT_EQ(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 0).size(), 1u) << "it is there already";
    expect_agreement();
}

TEST_F(Restart, KilledBeforeTheGridHasOpened) {
    lead.keep_silent(MessageType::grid_open);
    begin(MessageType::open_sequence, open_request());
    ASSERT_EQ(lead.wait_for<wire::GridOpen>(MessageType::grid_open, 1).size(), 1u);
    restart_and_settle();
    EXPECT_EQ(status().differences(), 1u);
    EXPECT_TRUE(sequences().empty());
    expect_agreement();
}

TEST_F(Restart, KilledAfterTheGridHasOpenedAndForked) {
    const auto kept = open(model).value().sequence();
    lead.keep_silent(MessageType::grid_open);
    lead.keep_silent(MessageType::grid_fork);
    begin(MessageType::open_sequence, open_request());
    begin(MessageType::fork_sequence, named(kept));
    ASSERT_EQ(lead.wait_for<wire::GridOpen>(MessageType::grid_open, 2).size(), 2u);
    ASSERT_EQ(lead.wait_for<wire::GridFork>(MessageType::grid_fork, 1).size(), 1u);
    stop();
    lead.speak();  // the grid has done it, and there is nobody to tell
    ASSERT_EQ(lead.held().sequences_size(), 3);
    restart_and_settle();
    EXPECT_EQ(status().differences(), 2u);
    EXPECT_EQ(sequences(), std::vector<std::uint64_t>{kept});
    expect_agreement();
}

TEST_F(Restart, KilledBeforeTheGridHasClosed) {
    const auto kept = open(model).value().sequence();
    lead.keep_silent(MessageType::grid_close);
    begin(MessageType::close_sequence, named(kept));
    ASSERT_EQ(lead.wait_for<wire::GridClose>(MessageType::grid_close, 1).size(), 1u);
    restart_and_settle();
    EXPECT_EQ(sequences(), std::vector<std::uint64_t>{kept}) << "closing can be tried again";
    lead.behave(MessageType::grid_close);
    EXPECT_TRUE(close(kept));
    expect_agreement();
}

TEST_F(Restart, KilledAfterTheGridHasClosed) {
    const auto closed = open(model).value().sequence();
    lead.keep_silent(MessageType::grid_close);
    begin(MessageType::close_sequence, named(closed));
    ASSERT_EQ(lead.wait_for<wire::GridClose>(MessageType::grid_close, 1).size(), 1u);
    stop();
    lead.speak();
    restart_and_settle();
    EXPECT_TRUE(sequences().empty());
    EXPECT_EQ(close(closed).error(), Errc::not_found);
    expect_agreement();
}

TEST_F(Restart, KilledBeforeTheGridHasAddedAModel) {
    ModelSpec other = small_spec();
    other.name = "other";
    wire::RegisterModelRequest request;
    request.set_spec_json(to_json(other));
    lead.keep_silent(MessageType::grid_add_model);
    begin(MessageType::register_model, request);
    ASSERT_EQ(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 2).size(), 2u);
    lead.behave(MessageType::grid_add_model);
    restart_and_settle();
    EXPECT_EQ(model_count(), 1);
    EXPECT_TRUE(register_model(other)) << "its name and its memory are free";
    expect_agreement();
}

TEST_F(Restart, KilledAfterTheGridHasAddedAModel) {
    ModelSpec other = small_spec();
    other.name = "other";
    wire::RegisterModelRequest request;
    request.set_spec_json(to_json(other));
    request.set_pool_bytes_per_worker(4 << 20);
    lead.keep_silent(MessageType::grid_add_model);
    begin(MessageType::register_model, request);
    ASSERT_EQ(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 2).size(), 2u);
    stop();
    lead.speak();
    restart_and_settle();
    EXPECT_EQ(model_count(), 2);
    EXPECT_EQ(register_model(other)->pool_bytes_per_worker(), 4u << 20) << "registering it again finds it";
    EXPECT_EQ(lead.wait_for<wire::GridAddModel>(MessageType::grid_add_model, 0).size(), 2u);
    expect_agreement();
}

TEST_F(Restart, WhatTheGridHasLostIsErasedAndWhatNobodyKnowsIsClosed) {
    const auto lost = open(model).value().sequence(), kept = open(model).value().sequence();
    stop();
    lead.change_held([&](wire::GridInventoryReply& held) {
        for (auto& sequence : *held.mutable_sequences())
            if (sequence.sequence() == lost) sequence.set_sequence(4711);
    });
    restart_and_settle();
    EXPECT_EQ(status().differences(), 2u);
    EXPECT_EQ(sequences(), std::vector<std::uint64_t>{kept});
    const auto closed = lead.wait_for<wire::GridClose>(MessageType::grid_close, 1);
    ASSERT_EQ(closed.size(), 1u);
    EXPECT_EQ(closed.front().sequence(), 4711u);
    expect_agreement();
}

TEST_F(Restart, AGridOfAnotherCatalogueIsLeftAloneAndThatIsSaid) {
    stop();
    lead.change_held([](wire::GridInventoryReply& held) {
        ModelSpec other = small_spec();
        other.scale = 0.5;
        held.mutable_models(0)->set_spec_json(to_json(other));
    });
    restart();
    heartbeats();
    std::string why;
    for (const auto end = deadline_in(10s);
         why.find("another state directory") == why.npos && std::chrono::steady_clock::now() < end;) {
        why = status().not_ready_because();
    }
    EXPECT_NE(why.find("model 1 (small) is held as small"), why.npos) << why;
    EXPECT_EQ(open(model).error(), Errc::unavailable);
}

TEST_F(Restart, ALeadThatDoesNotAnswerIsAskedAgain) {
    lead.refuse(MessageType::grid_inventory, {Errc::busy, "later"});
    restart();
    heartbeats();
    lead.wait_for<wire::GridInventoryRequest>(MessageType::grid_inventory, 2);
    EXPECT_FALSE(status().ready());
    lead.behave(MessageType::grid_inventory);
    for (const auto end = deadline_in(10s); !status().ready() && std::chrono::steady_clock::now() < end;) {
        pass(100ms);
        heartbeats();
    }
    EXPECT_TRUE(status().ready()) << status().not_ready_because();
}

TEST_F(Restart, EachStartHasAHigherTermAndSaysSoWithWhatItAsks) {
    ASSERT_TRUE(open(model));
    restart_and_settle();
    ASSERT_TRUE(open(model));
    const auto opens = lead.wait_for<wire::GridOpen>(MessageType::grid_open, 2);
    const auto inventories = lead.wait_for<wire::GridInventoryRequest>(MessageType::grid_inventory, 2);
    ASSERT_EQ(opens.size(), 2u);
    EXPECT_EQ(opens[0].term(), inventories[0].term());
    EXPECT_EQ(opens[1].term(), inventories[1].term());
    EXPECT_GT(opens[1].term(), opens[0].term());
}

}  // namespace
}  // namespace kvgrid::coordinator
