// NCCL's collectives give what their definitions say; ranks that do not come, at forming or at a call, cost the others their deadline once, and
// nothing of the GPU's memory is lost by it. Ranks are threads of this process, which share the GPUs there are; without NCCL 2.30 each needs
// one of its own, and the tests are skipped where there are too few.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include "comm/collective/nccl/nccl_world.h"
#include "comm/collective/thread_world.h"

namespace kvgrid::comm {
namespace {

using std::chrono::milliseconds;

Deadline far() {
    return deadline_in(std::chrono::seconds(20));
}

int gpu_count() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::size_t free_bytes() {
    std::size_t free = 0, total = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    return free;
}

class NcclCollectives : public testing::TestWithParam<int> {
  protected:
    void SetUp() override {
        if (size() > gpu_count() && !nccl_shares_gpus()) {
            GTEST_SKIP() << "NCCL " << nccl_version() << " wants a GPU for each of " << size()
                         << " ranks, and there are " << gpu_count();
        }
    }
    int size() const { return GetParam(); }

    // Runs `work` as each of the first `count` ranks, on threads, after they have formed.
    void run(int count, Generation generation, Deadline forming,
             const std::function<void(int, Result<std::unique_ptr<Collective>>)>& work) {
        std::vector<int> everyone(size());
        for (int rank = 0; rank < size(); ++rank) everyone[rank] = rank;
        std::vector<std::jthread> threads;
        for (int rank = 0; rank < count; ++rank) {
            threads.emplace_back([&, rank] {
                EXPECT_EQ(cudaSetDevice(rank % gpu_count()), cudaSuccess);
                auto control = threads_.form(rank, everyone, generation);
                ASSERT_TRUE(control.ok());
                work(rank, nccl_.form(**control, {.blocks_max = 2, .share_process = true},
                                      forming));  // before `control` ends
            });
        }
    }
    void run(const std::function<void(Collective&)>& work) {
        run(size(), Generation{++generation_}, far(), [&](int, Result<std::unique_ptr<Collective>> formed) {
            ASSERT_TRUE(formed.ok()) << formed.error().message;
            work(**formed);
        });
    }

    ThreadWorld threads_{GetParam()};
    NcclWorld nccl_;
    std::uint64_t generation_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Ranks, NcclCollectives, testing::Values(2, 4));

std::vector<std::byte> bytes_of(int rank, int round, std::size_t count) {
    return std::vector<std::byte>(count, static_cast<std::byte>(16 * rank + round));
}

TEST_P(NcclCollectives, GiveWhatTheirDefinitionsSay) {
    run([&](Collective& rank) {
        EXPECT_EQ(rank.size(), size());
        for (int round = 1; round < 10; ++round) {
            const std::size_t count = static_cast<std::size_t>(round) * 1000;
            std::vector<std::byte> expected;
            for (int other = 0; other < size(); ++other)
                std::ranges::copy(bytes_of(other, round, count), std::back_inserter(expected));
            std::vector<std::byte> all(expected.size());
            ASSERT_TRUE(rank.all_gather(bytes_of(rank.rank(), round, count), all, far()).ok());
            EXPECT_EQ(all, expected);

            const int root = round % size();
            std::vector<std::byte> at_root(rank.rank() == root ? expected.size() : 0);
            ASSERT_TRUE(rank.gather(bytes_of(rank.rank(), round, count), at_root, root, far()).ok());
            if (rank.rank() == root) {
                EXPECT_EQ(at_root, expected);
            }

            std::vector<std::byte> told = bytes_of(rank.rank(), round, count);
            ASSERT_TRUE(rank.broadcast(told, root, far()).ok());
            EXPECT_EQ(told, bytes_of(root, round, count));

            std::int64_t values[] = {rank.rank() + 1, -rank.rank(), round};
            ASSERT_TRUE(rank.all_reduce(values, ReduceOp::sum, far()).ok());
            EXPECT_EQ(values[0], size() * (size() + 1) / 2);
            EXPECT_EQ(values[1], -size() * (size() - 1) / 2);
            EXPECT_EQ(values[2], round * size());
            ASSERT_TRUE(rank.barrier(far()).ok());
        }
    });
    EXPECT_EQ(nccl_.communicator_count(), 0);
    EXPECT_EQ(nccl_.abort_count(), 0u);
}

TEST_P(NcclCollectives, OfAnAbsentRankEndAtTheirDeadlineAndAreBrokenThen) {
    run([&](Collective& rank) {
        ASSERT_TRUE(rank.barrier(far()).ok());
        if (rank.rank() == size() - 1) return std::this_thread::sleep_for(milliseconds(1500));
        const TimePoint began = std::chrono::steady_clock::now();
        std::int64_t value[] = {1};
        const Status late = rank.all_reduce(value, ReduceOp::sum, deadline_in(milliseconds(300)));
        ASSERT_FALSE(late.ok());
        EXPECT_EQ(late.error(), Errc::deadline_exceeded);
        EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
        EXPECT_EQ(rank.barrier(far()).error(), Errc::peer_lost);
    });
    EXPECT_EQ(nccl_.communicator_count(), 0);
}

TEST_P(NcclCollectives, EndWhenTheyAreCancelled) {
    run([&](Collective& rank) {
        ASSERT_TRUE(rank.barrier(far()).ok());
        if (rank.rank() == size() - 1) return std::this_thread::sleep_for(milliseconds(1000));
        std::jthread canceller([&] {
            std::this_thread::sleep_for(milliseconds(100));
            rank.cancel();
        });
        std::int64_t value[] = {1};
        EXPECT_EQ(rank.all_reduce(value, ReduceOp::sum, far()).error(), Errc::peer_lost);
    });
}

TEST_P(NcclCollectives, FormAgainAndAgainWithoutLosingMemory) {
    run([](Collective& rank) { ASSERT_TRUE(rank.barrier(far()).ok()); });
    const std::size_t before = free_bytes();
    for (int round = 0; round < 20; ++round) {
        run([&](Collective& rank) {
            ASSERT_TRUE(rank.barrier(far()).ok());
            const bool stays_away = round % 2 == 1 && rank.rank() == size() - 1;
            if (stays_away) return std::this_thread::sleep_for(milliseconds(400));
            EXPECT_EQ(rank.barrier(deadline_in(milliseconds(round % 2 == 1 ? 100 : 60'000))).ok(), round % 2 == 0);
        });
    }
    EXPECT_EQ(nccl_.communicator_count(), 0);
    constexpr std::size_t kNoise = 32 << 20;  // what the runtime keeps for itself
    EXPECT_GT(free_bytes() + kNoise, before);
}

}  // namespace
}  // namespace kvgrid::comm

int main(int argc, char** argv) {
    kvgrid::comm::prepare_nccl_environment();
    testing::InitGoogleTest(&argc, argv);
    if (kvgrid::comm::gpu_count() == 0) {
        std::printf("skipped: this machine has no CUDA device (or no driver for one)\n");
        return 77;
    }
    return RUN_ALL_TESTS();
}
