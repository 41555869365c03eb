// Each operation gives what its definition says, for one rank and for several; a rank that does not come costs the others their deadline
// once and nothing after that. Ranks are threads here, and the expected values are computed from the rank numbers.

#include "comm/collective/thread_collective.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <thread>

namespace kvgrid::comm {
namespace {

using std::chrono::milliseconds;

Deadline far() {
    return deadline_in(std::chrono::seconds(60));
}

// Runs `work` as every listed rank, each on its own thread.
void run_ranks(const std::vector<Collective*>& ranks, const std::function<void(Collective&)>& work) {
    std::vector<std::jthread> threads;
    for (Collective* rank : ranks) threads.emplace_back([&work, rank] { work(*rank); });
}

class ThreadCollective : public ::testing::TestWithParam<int> {
  protected:
    void run(const std::function<void(Collective&)>& work) {
        std::vector<Collective*> all;
        for (const auto& rank : ranks_) all.push_back(rank.get());
        run_ranks(all, work);
    }
    int size() const { return GetParam(); }

    std::vector<std::unique_ptr<Collective>> ranks_ = make_thread_collectives(GetParam(), Generation{7});
};

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadCollective, ::testing::Values(1, 2, 3, 5));

std::vector<std::byte> bytes_of(int rank, int round, std::size_t count) {
    return std::vector<std::byte>(count, static_cast<std::byte>(16 * rank + round));
}

std::vector<std::byte> bytes_of_all(int size, int round, std::size_t count) {
    std::vector<std::byte> all;
    for (int rank = 0; rank < size; ++rank) {
        const auto one = bytes_of(rank, round, count);
        all.insert(all.end(), one.begin(), one.end());
    }
    return all;
}

TEST_P(ThreadCollective, RanksKnowWhoTheyAre) {
    for (int rank = 0; rank < size(); ++rank) {
        const Collective& one = *ranks_[static_cast<std::size_t>(rank)];
        EXPECT_EQ(one.rank(), rank);
        EXPECT_EQ(one.size(), size());
        EXPECT_EQ(one.generation(), Generation{7});
    }
}

TEST_P(ThreadCollective, AllGatherGivesEveryRankEveryContribution) {
    run([&](Collective& rank) {
        for (int round = 0; round < 10; ++round) {
            const std::size_t count = static_cast<std::size_t>(round) * 100;
            std::vector<std::byte> all(count * static_cast<std::size_t>(size()));
            ASSERT_TRUE(rank.all_gather(bytes_of(rank.rank(), round, count), all, far()).ok());
            EXPECT_EQ(all, bytes_of_all(size(), round, count));
        }
    });
}

TEST_P(ThreadCollective, GatherGivesTheRootEveryContribution) {
    run([&](Collective& rank) {
        for (int root = 0; root < size(); ++root) {
            std::vector<std::byte> all(rank.rank() == root ? 32 * static_cast<std::size_t>(size()) : 0);
            ASSERT_TRUE(rank.gather(bytes_of(rank.rank(), root, 32), all, root, far()).ok());
            if (rank.rank() == root) {
                EXPECT_EQ(all, bytes_of_all(size(), root, 32));
            }
        }
    });
}

TEST_P(ThreadCollective, BroadcastGivesEveryRankTheRootsBytes) {
    run([&](Collective& rank) {
        for (int root = 0; root < size(); ++root) {
            auto data = bytes_of(rank.rank(), 3, 100);
            ASSERT_TRUE(rank.broadcast(data, root, far()).ok());
            EXPECT_EQ(data, bytes_of(root, 3, 100));
        }
    });
}

TEST_P(ThreadCollective, AllReduceReducesElementByElement) {
    run([&](Collective& rank) {
        const std::int64_t number = rank.rank(), last = size() - 1;
        std::vector<std::int64_t> sums{1, number, -number}, least{number, -number}, most{number, -number};

        ASSERT_TRUE(rank.all_reduce(sums, ReduceOp::sum, far()).ok());
        ASSERT_TRUE(rank.all_reduce(least, ReduceOp::min, far()).ok());
        ASSERT_TRUE(rank.all_reduce(most, ReduceOp::max, far()).ok());

        const std::int64_t triangle = last * (last + 1) / 2;
        EXPECT_EQ(sums, (std::vector<std::int64_t>{last + 1, triangle, -triangle}));
        EXPECT_EQ(least, (std::vector<std::int64_t>{0, -last}));
        EXPECT_EQ(most, (std::vector<std::int64_t>{last, 0}));
    });
}

TEST_P(ThreadCollective, NobodyLeavesABarrierBeforeAllHaveEntered) {
    std::atomic<int> entered = 0;
    run([&](Collective& rank) {
        for (int round = 1; round <= 20; ++round) {
            ++entered;
            ASSERT_TRUE(rank.barrier(far()).ok());
            EXPECT_GE(entered, round * size());
        }
    });
}

TEST_P(ThreadCollective, BytesAreCountedAsReceived) {
    run([&](Collective& rank) {
        std::vector<std::byte> mine(10), all(10 * static_cast<std::size_t>(size()));
        ASSERT_TRUE(rank.all_gather(mine, all, far()).ok());
        ASSERT_TRUE(rank.broadcast(mine, 0, far()).ok());
        ASSERT_TRUE(rank.barrier(far()).ok());

        const auto others = static_cast<std::uint64_t>(size() - 1);
        EXPECT_EQ(rank.counters().calls, 3u);
        EXPECT_EQ(rank.counters().bytes_received, 10 * others + (rank.rank() == 0 ? 0 : 10));
    });
}

TEST_P(ThreadCollective, WrongSizesAndRootsAreRefusedAndBreakTheCollective) {
    Collective& rank = *ranks_.front();
    std::vector<std::byte> mine(10), all(10 * static_cast<std::size_t>(size()) + 1);

    EXPECT_EQ(rank.all_gather(mine, all, far()).error(), Errc::invalid_argument);
    EXPECT_EQ(rank.barrier(far()).error(), Errc::peer_lost);
    for (const int root : {-1, size()}) {
        auto fresh = make_thread_collectives(size(), Generation{8});
        EXPECT_EQ(fresh.front()->gather(mine, all, root, far()).error(), Errc::invalid_argument);
    }
}

class AbsentRank : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, AbsentRank, ::testing::Values(2, 3, 5));

TEST_P(AbsentRank, CostsTheOthersTheirDeadlineAndThenNothing) {
    auto ranks = make_thread_collectives(GetParam(), Generation{7});
    std::vector<Collective*> present;
    for (std::size_t rank = 1; rank < ranks.size(); ++rank) present.push_back(ranks[rank].get());
    ranks.front().reset();

    run_ranks(present, [](Collective& rank) {
        const TimePoint before = std::chrono::steady_clock::now();
        const Status late = rank.barrier(deadline_in(milliseconds(50)));
        EXPECT_EQ(late.error(), Errc::deadline_exceeded);
        EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(50));
        EXPECT_NE(late.error().message.find("did not come in time: rank 0"), std::string::npos) << late.error().message;

        EXPECT_EQ(rank.barrier(far()).error(), Errc::peer_lost);
    });
}

TEST_P(AbsentRank, IsToldWhenItComesTooLate) {
    auto ranks = make_thread_collectives(GetParam(), Generation{7});
    std::vector<Collective*> present;
    for (std::size_t rank = 1; rank < ranks.size(); ++rank) present.push_back(ranks[rank].get());
    run_ranks(present, [](Collective& rank) { EXPECT_FALSE(rank.barrier(deadline_in(milliseconds(20))).ok()); });

    EXPECT_EQ(ranks.front()->barrier(far()).error(), Errc::peer_lost);
}

TEST_P(AbsentRank, CostsARankThatIsCancelledNoTime) {
    auto ranks = make_thread_collectives(GetParam(), Generation{7});
    std::vector<Collective*> present;
    for (std::size_t rank = 1; rank < ranks.size(); ++rank) present.push_back(ranks[rank].get());
    std::jthread canceller([&] {
        for (Collective* rank : present) rank->cancel();
    });

    run_ranks(present, [](Collective& rank) {
        EXPECT_EQ(rank.barrier(Deadline::max()).error(), Errc::peer_lost);
        EXPECT_EQ(rank.barrier(Deadline::max()).error(), Errc::peer_lost);
    });
}

TEST(ThreadCollectives, ACancelledRankThatWaitsIsWoken) {
    auto ranks = make_thread_collectives(2, Generation{7});
    std::atomic<bool> about_to_wait = false;
    std::jthread waiting([&] {
        about_to_wait = true;
        about_to_wait.notify_one();
        EXPECT_EQ(ranks[0]->barrier(Deadline::max()).error(), Errc::peer_lost);
    });
    about_to_wait.wait(false);

    ranks[0]->cancel();
}

TEST(ThreadCollectives, RanksThatMakeDifferentCallsAreToldSo) {
    auto ranks = make_thread_collectives(2, Generation{7});
    std::jthread other([&] {
        std::vector<std::byte> data(8);
        EXPECT_EQ(ranks[1]->broadcast(data, 0, far()).error(), Errc::internal);
    });
    EXPECT_EQ(ranks[0]->barrier(far()).error(), Errc::internal);
}

}  // namespace
}  // namespace kvgrid::comm
