// A rank whose peer does not come is freed by cancelling its collective, with every page accounted for; and an inventory tells what the
// shards hold only if all of them hold the same.

#include <gtest/gtest.h>

#include <thread>

#include "comm/collective/thread_collective.h"
#include "tests/grid/driver.h"
#include "worker/cpu_device.h"
#include "worker/executor.h"

namespace kvgrid::tests {
namespace {

using worker::Operation;
using worker::OperationResult;

constexpr ModelId kModel{1};

struct Rank {
    Rank(int rank, std::unique_ptr<comm::Collective> made)
        : collective(std::move(made)),
          shard(rank, 16 << 20, device),
          executor(shard, *collective, std::chrono::hours(1)) {}

    worker::CpuDevice device{1};
    std::unique_ptr<comm::Collective> collective;
    worker::Shard shard;
    worker::Executor executor;
};

class LostPeer : public testing::Test {
  protected:
    LostPeer() {
        auto collectives = comm::make_thread_collectives(2, Generation{1});
        for (int rank = 0; rank < 2; ++rank)
            ranks_.push_back(std::make_unique<Rank>(rank, std::move(collectives[rank])));
        on_both(worker::AddModel{kModel, make_spec(1, 2, 2, 32, Dtype::f32), {2, 1}, 1 << 20});
        on_both(worker::OpenSequence{SequenceId{5}, kModel, {}});
        on_both(worker::OpenSequence{SequenceId{6}, kModel, {}});
    }

    OperationResult on(int rank, worker::OperationBody body) {
        return ranks_[rank]->executor.apply({++number_, std::move(body), {}});
    }
    OperationResult on_both(const worker::OperationBody& body) {
        const Operation operation{++number_, body, {}};
        std::jthread other([&] { ranks_[1]->executor.apply(operation); });
        return ranks_[0]->executor.apply(operation);
    }

    std::vector<std::unique_ptr<Rank>> ranks_;
    std::uint64_t number_ = 0;
};

TEST_F(LostPeer, TheRankThatWaitsForItIsFreedAndRefusesWhatComesLater) {
    std::jthread canceller([&] { ranks_[0]->collective->cancel(); });
    const OperationResult begun =
        on(0, worker::BeginStep{StepId{1}, kModel, worker::StepKind::attend, {{SequenceId{5}, 70}}});

    EXPECT_EQ(begun.status.error(), Errc::peer_lost);
    EXPECT_EQ(on(0, worker::CloseSequence{SequenceId{6}}).status.error(), Errc::peer_lost);
    const worker::ModelReport report = ranks_[0]->shard.report().front();
    EXPECT_TRUE(report.pages.conserved());
    EXPECT_TRUE(ranks_[0]->shard.find_model(kModel)->pool->recount_agrees());
    EXPECT_EQ(report.sequences, 2u) << "the shard stays as it is";
}

TEST_F(LostPeer, AnInventoryIsWhatBothHold) {
    on_both(worker::BeginStep{StepId{1}, kModel, worker::StepKind::attend, {{SequenceId{5}, 70}}});
    const OperationResult result = on_both(worker::TakeInventory{});
    ASSERT_TRUE(result.status) << result.status.error().to_string();
    ASSERT_EQ(result.inventory.models.size(), 1u);
    EXPECT_EQ(result.inventory.models[0].id, kModel);
    EXPECT_EQ(result.inventory.models[0].grid, (GridShape{2, 1}));
    ASSERT_EQ(result.inventory.sequences.size(), 2u);
    EXPECT_EQ(result.inventory.sequences[0].id, SequenceId{5});
    EXPECT_EQ(result.inventory.sequences[0].length, 0) << "nothing is committed";
    EXPECT_TRUE(result.inventory.sequences[0].step_open);
    EXPECT_FALSE(result.inventory.sequences[1].step_open);
}

TEST_F(LostPeer, ShardsThatHoldDifferentThingsEndTheGeneration) {
    ASSERT_TRUE(on(1, worker::CloseSequence{SequenceId{6}}).status);
    const OperationResult result = on_both(worker::TakeInventory{});
    EXPECT_EQ(result.status.error(), Errc::peer_lost);
    EXPECT_NE(result.status.error().message.find("do not hold the same"), std::string::npos);
}

}  // namespace
}  // namespace kvgrid::tests
