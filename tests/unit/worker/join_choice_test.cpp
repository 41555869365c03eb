// Ranks choose the GPUs' memory to join in where all of them can, and say otherwise which of them cannot, and why.
#include "worker/join_choice.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvgrid::worker {
namespace {

JoinIdentity gpu_rank(std::uint64_t device, std::uint64_t process, std::uint32_t nccl_version = 22809) {
    return {.host = 1, .device = device, .process = process, .is_gpu = 1, .nccl_version = nccl_version};
}

TEST(JoinChoice, OneRankHasNothingToJoin) {
    const JoinChoice choice = choose_join(std::vector{gpu_rank(1, 1)});
    EXPECT_EQ(choice.way, JoinWay::alone);
    EXPECT_EQ(choice.why, "the grid has one rank");
}

TEST(JoinChoice, ACpuAmongTheRanksTakesAllToTheHosts) {
    const JoinChoice choice = choose_join(std::vector{gpu_rank(1, 1), JoinIdentity{}});
    EXPECT_EQ(choice.way, JoinWay::host);
    EXPECT_EQ(choice.why, "rank 1 is on a CPU");
}

TEST(JoinChoice, SoDoesARankWithoutNccl) {
    const JoinChoice choice = choose_join(std::vector{gpu_rank(1, 1), gpu_rank(2, 2, 0), gpu_rank(3, 3)});
    EXPECT_EQ(choice.way, JoinWay::host);
    EXPECT_EQ(choice.why, "rank 1 was built without NCCL");
}

TEST(JoinChoice, RanksThatShareAGpuNeedAnNcclThatLetsThem) {
    const JoinChoice before = choose_join(std::vector{gpu_rank(1, 1), gpu_rank(1, 1)});
    EXPECT_EQ(before.way, JoinWay::host);
    EXPECT_EQ(before.why, "NCCL 2.28.9 cannot serve several ranks on one GPU, 2.30.0 can");

    EXPECT_EQ(choose_join(std::vector{gpu_rank(1, 1, 23003), gpu_rank(1, 1)}).way, JoinWay::host)
        << "the oldest counts";

    const JoinChoice since = choose_join(std::vector{gpu_rank(1, 1, 23003), gpu_rank(1, 1, 23003)});
    EXPECT_EQ(since.way, JoinWay::nccl);
    EXPECT_TRUE(since.share_process && since.pushes);
    EXPECT_EQ(since.why, "NCCL 2.30.3 serves 2 ranks on 1 GPUs");
}

TEST(JoinChoice, RanksWithGpusOfTheirOwnJoinThere) {
    const JoinChoice choice = choose_join(std::vector{gpu_rank(1, 1), gpu_rank(2, 2)});
    EXPECT_EQ(choice.way, JoinWay::nccl);
    EXPECT_FALSE(choice.share_process);
    EXPECT_EQ(choice.why, "NCCL 2.28.9 serves 2 ranks on 2 GPUs");
}

TEST(JoinChoice, ProcessesAndGpusOfTwoHostsAreNotTheSame) {
    JoinIdentity elsewhere = gpu_rank(1, 1);
    elsewhere.host = 2;
    const JoinChoice choice = choose_join(std::vector{gpu_rank(1, 1), elsewhere});
    EXPECT_EQ(choice.way, JoinWay::nccl);
    EXPECT_FALSE(choice.share_process || choice.pushes);
}

TEST(JoinChoice, ProcessesThatTakeTurnsOnAGpuJoinThereOnlyIfAllAreAskedTo) {
    std::vector<JoinIdentity> ranks{gpu_rank(1, 1, 23003), gpu_rank(1, 2, 23003)};
    EXPECT_EQ(choose_join(ranks).way, JoinWay::host);
    EXPECT_EQ(choose_join(ranks).why, "several processes share a GPU, which takes turns between them");

    ranks[0].wish = JoinWish::pushed;
    EXPECT_EQ(choose_join(ranks).way, JoinWay::host);
    ranks[1].wish = JoinWish::pushed;
    EXPECT_EQ(choose_join(ranks).way, JoinWay::nccl);
    EXPECT_TRUE(choose_join(ranks).pushes);
    ranks[1].wish = JoinWish::gathered;
    EXPECT_EQ(choose_join(ranks).way, JoinWay::nccl);
    EXPECT_FALSE(choose_join(ranks).pushes);
}

TEST(JoinChoice, ARankThatIsAskedToJoinOverTheHostsTakesAllThere) {
    std::vector<JoinIdentity> ranks{gpu_rank(1, 1), gpu_rank(2, 2)};
    ranks[1].wish = JoinWish::over_hosts;
    EXPECT_EQ(choose_join(ranks).way, JoinWay::host);
    EXPECT_FALSE(choose_join(ranks).pushes);
    EXPECT_EQ(choose_join(ranks).why, "rank 1 was asked to");
}

TEST(JoinChoice, WithoutNcclSmallOutputsArePushedAllTheSame) {
    const JoinChoice choice = choose_join(std::vector{gpu_rank(1, 1, 0), gpu_rank(2, 2, 0)});
    EXPECT_EQ(choice.way, JoinWay::host);
    EXPECT_TRUE(choice.pushes);
}

}  // namespace
}  // namespace kvgrid::worker
