// A Step says to the lead exactly what its caller said, in order and in the generation it was begun in, and is ended
// once: by commit, by abort, or, where neither came, by an abort at the end of its life.

#include <gtest/gtest.h>

#include "tests/unit/client/fake_cluster.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;

constexpr int kTokens = 3;

struct StepTest : testing::Test {
    Step begin(StepKind kind = StepKind::attend) {
        StepPart part{&sequence, kTokens};
        return client.begin({&part, 1}, kind).value();
    }
    LayerInput input() const { return {q, k, v}; }
    int aborts() { return cluster.lead.count(MessageType::abort_step); }

    FakeCluster cluster;
    Client client = cluster.connect();
    RegisteredModel model = client.register_model(test_spec()).value();
    Sequence sequence = client.open(model).value();
    std::vector<std::byte> q = filled(kTokens * kQueryRowBytes, 1);
    std::vector<std::byte> k = filled(kTokens * kKvRowBytes, 2);
    std::vector<std::byte> v = filled(kTokens * kKvRowBytes, 3);
};

TEST_F(StepTest, BeginSendsItsPartsInOrder) {
    Sequence other = client.open(model).value();
    std::vector<StepPart> parts{{&other, 2}, {&sequence, 5}};
    Step step = client.begin(parts, StepKind::write).value();

    EXPECT_EQ(step.id(), StepId{7});
    EXPECT_EQ(step.token_count(), 7);
    EXPECT_EQ(std::vector(step.lengths().begin(), step.lengths().end()), (std::vector<std::int64_t>{100, 101}));
    auto request = cluster.lead.last_message<wire::BeginStepRequest>(MessageType::begin_step);
    EXPECT_EQ(request.model(), 3u);
    EXPECT_EQ(request.kind(), wire::WRITE);
    ASSERT_EQ(request.parts_size(), 2);
    EXPECT_EQ(request.parts(0).sequence(), 12u);
    EXPECT_EQ(request.parts(0).tokens(), 2);
    EXPECT_EQ(request.parts(1).sequence(), 11u);
    EXPECT_EQ(cluster.lead.last(MessageType::begin_step).header.generation, 5u);
}

TEST_F(StepTest, PartsThatCannotBeOneStepAreNotSent) {
    Client other_client = cluster.connect();
    Sequence of_other_client = other_client.open(model).value();
    RegisteredModel other_model = model;
    other_model.id = {4};
    Sequence of_other_model = client.open(other_model).value();
    Sequence moved = client.open(model).value();
    Sequence target = std::move(moved);
    for (const auto& parts : std::vector<std::vector<StepPart>>{{},
                                                                {{nullptr, 1}},
                                                                {{&moved, 1}},
                                                                {{&sequence, 0}},
                                                                {{&sequence, -1}},
                                                                {{&sequence, 1 << 30}},
                                                                {{&sequence, 1}, {&sequence, 1}},
                                                                {{&sequence, 1}, {&of_other_model, 1}},
                                                                {{&of_other_client, 1}}})
        EXPECT_EQ(client.begin(parts).error(), Errc::invalid_argument);
    EXPECT_EQ(cluster.lead.count(MessageType::begin_step), 0);
}

TEST_F(StepTest, ARefusedBeginIsSentOnce) {
    for (Errc code : {Errc::no_room, Errc::busy, Errc::stale_generation, Errc::unavailable, Errc::peer_lost}) {
        int before = cluster.lead.count(MessageType::begin_step);
        cluster.lead.fail(MessageType::begin_step, {code, "needs 6 pages, 2 are free"});
        StepPart part{&sequence, kTokens};
        auto step = client.begin({&part, 1});

        ASSERT_EQ(step.error(), code);
        EXPECT_EQ(step.error().message, "needs 6 pages, 2 are free");
        EXPECT_EQ(cluster.lead.count(MessageType::begin_step), before + 1);
    }
}

TEST_F(StepTest, ALayerSendsItsTensorsAndAnswersTheOutput) {
    Step step = begin();
    auto o = step.layer(1, input());

    ASSERT_TRUE(o) << o.error().to_string();
    EXPECT_EQ(*o, q);
    auto request = cluster.lead.last_message<wire::LayerRequest>(MessageType::layer);
    EXPECT_EQ(request.step(), 7u);
    EXPECT_EQ(request.layer(), 1);
    EXPECT_EQ(cluster.lead.last(MessageType::layer).payload.size(), q.size() + k.size() + v.size());
    EXPECT_EQ(cluster.lead.last(MessageType::layer).header.generation, 5u);
}

TEST_F(StepTest, ALayerOfAnIterateStepSaysWhatItLeavesOut) {
    cluster.lead.on(MessageType::layer, [](const comm::Frame& frame, comm::Responder responder) {
        responder.reply(MessageType::layer_reply, comm::pack(wire::LayerReply()), frame.payload);
    });
    StepPart part{&sequence, kTokens};
    Step step = client.begin({&part, 1}, StepKind::iterate).value();
    EXPECT_EQ(cluster.lead.last_message<wire::BeginStepRequest>(MessageType::begin_step).kind(), wire::ITERATE);
    auto future = step.layer_async(1, {q, {}, {}});

    EXPECT_EQ(future.get().value(), q);
    auto request = cluster.lead.last_message<wire::LayerRequest>(MessageType::layer);
    EXPECT_TRUE(request.without_kv() && !request.without_q());
    EXPECT_EQ(cluster.lead.last(MessageType::layer).payload.size(), q.size());
    EXPECT_EQ(step.layer(1, {}).error(), Errc::invalid_argument);
}

TEST_F(StepTest, ALayerPutsItsOutputWhereTheCallerWantsIt) {
    Step step = begin();
    std::vector<std::byte> o(q.size()), shorter(q.size() - 1);

    EXPECT_TRUE(step.layer_into(1, input(), o));
    EXPECT_EQ(o, q);
    EXPECT_EQ(step.layer_into(1, input(), shorter).error(), Errc::invalid_argument);
    EXPECT_EQ(cluster.lead.count(MessageType::layer), 1);
}

TEST_F(StepTest, ALayerOfTheWrongSizeIsNotSent) {
    Step step = begin();

    EXPECT_EQ(step.layer(0, {q, k, {}}).error(), Errc::invalid_argument);
    EXPECT_EQ(step.layer_async(0, {q, k, {}}).get().error(), Errc::invalid_argument);
    EXPECT_EQ(cluster.lead.count(MessageType::layer), 0);
}

TEST_F(StepTest, AsynchronousLayersGoOutInOrderAndNeedTheirInputNoLonger) {
    auto order = std::make_shared<std::vector<int>>();
    cluster.lead.on(MessageType::layer, [order](const comm::Frame& frame, comm::Responder responder) {
        order->push_back(comm::unpack<wire::LayerRequest>(frame).value().layer());
        responder.reply(MessageType::layer_reply, comm::pack(wire::LayerReply()),
                        frame.payload.slice(0, kTokens * kQueryRowBytes));
    });
    Step step = begin();
    std::vector<std::byte> changing = q;
    auto first = step.layer_async(0, {changing, k, v});
    changing = filled(changing.size(), 9);
    auto second = step.layer_async(1, {changing, k, v});
    auto third = step.layer_async(2, {q, {}, {}});

    EXPECT_EQ(first.get().value(), q);
    EXPECT_EQ(second.get().value(), changing);
    EXPECT_EQ(third.get().value(), q);
    EXPECT_EQ(*order, (std::vector{0, 1, 2}));
}

TEST_F(StepTest, AnAsynchronousLayerEndsWhenItsStepAndClientAreGone) {
    cluster.lead.hang(MessageType::layer);
    std::future<Result<std::vector<std::byte>>> o;
    {
        Client brief = cluster.connect();
        Sequence own = brief.open(model).value();
        StepPart part{&own, kTokens};
        Step step = brief.begin({&part, 1}).value();
        o = step.layer_async(0, input());
    }
    EXPECT_EQ(o.get().error(), Errc::unavailable);
}

TEST_F(StepTest, AnOutputOfAnotherSizeIsCorrupt) {
    cluster.lead.reply(MessageType::layer, MessageType::layer_reply, wire::LayerReply(), comm::Payload::copy_of(k));
    Step step = begin();

    EXPECT_EQ(step.layer(0, input()).error(), Errc::corrupt);
    EXPECT_EQ(step.layer_async(0, input()).get().error(), Errc::corrupt);
}

TEST_F(StepTest, CommitEndsIt) {
    {
        Step step = begin();
        EXPECT_TRUE(step.commit());
        EXPECT_EQ(cluster.lead.last_message<wire::StepRequest>(MessageType::commit_step).step(), 7u);
        EXPECT_EQ(step.commit().error(), Errc::wrong_state);
        EXPECT_EQ(step.abort().error(), Errc::wrong_state);
        EXPECT_EQ(step.layer(0, input()).error(), Errc::wrong_state);
        EXPECT_EQ(step.layer_async(0, input()).get().error(), Errc::wrong_state);
    }
    EXPECT_EQ(cluster.lead.count(MessageType::commit_step), 1);
    EXPECT_EQ(aborts(), 0);
}

TEST_F(StepTest, DestroyedBeforeCommitItIsAborted) {
    { Step step = begin(); }

    EXPECT_EQ(aborts(), 1);
    EXPECT_EQ(cluster.lead.last_message<wire::StepRequest>(MessageType::abort_step).step(), 7u);
}

TEST_F(StepTest, AbortedOnceHoweverItMoves) {
    {
        Step first = begin();
        Step second = std::move(first);
        EXPECT_TRUE(second.abort());
        second = begin();
    }
    EXPECT_EQ(aborts(), 2);  // one of each step
}

TEST_F(StepTest, ARefusedCommitLeavesItOpen) {
    cluster.lead.fail(MessageType::commit_step, {Errc::wrong_state, "layer 2 has not been called"});
    {
        Step step = begin();
        EXPECT_EQ(step.commit().error(), Errc::wrong_state);
        EXPECT_TRUE(step.layer(2, {q, {}, {}}));
    }
    EXPECT_EQ(aborts(), 1);
}

TEST_F(StepTest, IsLostWithItsGeneration) {
    cluster.lead.fail(MessageType::layer, {Errc::stale_generation, "this is generation 6"});
    {
        Step step = begin();
        EXPECT_EQ(step.layer(0, input()).error(), Errc::stale_generation);
        EXPECT_EQ(step.commit().error(), Errc::wrong_state);
    }
    EXPECT_EQ(aborts(), 0);
    EXPECT_EQ(cluster.lead.count(MessageType::commit_step), 0);
}

TEST_F(StepTest, EndsQuicklyWhereTheLeadIsSilent) {
    cluster.lead.hang(MessageType::abort_step);
    auto start = std::chrono::steady_clock::now();
    { Step step = begin(); }

    EXPECT_LT(std::chrono::steady_clock::now() - start, 8s);  // it waits half a second, not its client's 10
    EXPECT_EQ(aborts(), 1);
}

TEST_F(StepTest, ManyThreadsMayCallOneClient) {
    std::vector<std::future<void>> threads;
    for (int thread = 0; thread < 4; ++thread)
        threads.push_back(std::async(std::launch::async, [&] {
            for (int i = 0; i < 5; ++i) {
                Sequence own = client.open(model).value();
                StepPart part{&own, kTokens};
                Step step = client.begin({&part, 1}).value();
                EXPECT_EQ(step.layer(0, input()).value(), q);
                EXPECT_TRUE(step.commit());
            }
        }));
    for (auto& thread : threads) thread.get();

    EXPECT_EQ(cluster.lead.count(MessageType::commit_step), 20);
    EXPECT_EQ(aborts(), 0);
}

TEST_F(StepTest, ACallInGpuMemorySendsPlacesAlone) {
    const std::vector<std::byte> handle = filled(64, 9);
    cluster.lead.reply(MessageType::share_device_memory, MessageType::empty, wire::Empty());
    EXPECT_EQ(client.share_device_memory(std::span<const std::byte, 64>(handle), 0).error(), Errc::invalid_argument);
    EXPECT_EQ(cluster.lead.count(MessageType::share_device_memory), 0);
    ASSERT_TRUE(client.share_device_memory(std::span<const std::byte, 64>(handle), 4096).ok());
    auto share = cluster.lead.last_message<wire::ShareDeviceMemoryRequest>(MessageType::share_device_memory);
    EXPECT_EQ(share.handle(), std::string(64, 9));
    EXPECT_EQ(share.bytes(), 4096u);

    Step step = begin();
    ASSERT_TRUE(step.layer_on_device(1, {.q = 16, .k = 32, .v = 48, .o = 64, .memory = 3}).ok());
    EXPECT_EQ(cluster.lead.last(MessageType::layer).payload.size(), 0u);
    const auto request = cluster.lead.last_message<wire::LayerRequest>(MessageType::layer);
    EXPECT_EQ(request.step(), 7u);
    EXPECT_EQ(request.layer(), 1);
    EXPECT_EQ(request.shared_bytes(), 0u);
    EXPECT_EQ(request.on_device().q(), 16u);
    EXPECT_EQ(request.on_device().k(), 32u);
    EXPECT_EQ(request.on_device().v(), 48u);
    EXPECT_EQ(request.on_device().o(), 64u);
    EXPECT_EQ(request.device_memory(), 3u);
    cluster.lead.fail(MessageType::layer, {Errc::wrong_state, "share it first"});
    EXPECT_EQ(step.layer_on_device(2, {}).error(), Errc::wrong_state);
    EXPECT_TRUE(step.commit().ok());
    EXPECT_EQ(step.layer_on_device(2, {}).error(), Errc::wrong_state);
    EXPECT_EQ(cluster.lead.count(MessageType::layer), 2);

    ASSERT_TRUE(client.unshare_device_memory(5).ok());
    share = cluster.lead.last_message<wire::ShareDeviceMemoryRequest>(MessageType::share_device_memory);
    EXPECT_EQ(share.bytes(), 0u);
    EXPECT_EQ(share.memory(), 5u);
    EXPECT_TRUE(share.handle().empty());
}

}  // namespace
}  // namespace kvgrid
