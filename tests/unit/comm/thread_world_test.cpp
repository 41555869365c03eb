// The ranks of one process form one collective for each generation, whoever comes first, and those of different generations never meet.

#include "comm/collective/thread_world.h"

#include <gtest/gtest.h>

#include <thread>

namespace kvgrid::comm {
namespace {

using namespace std::chrono_literals;

TEST(ThreadWorld, RanksThatFormTogetherMeet) {
    ThreadWorld world(3);
    std::vector<std::int64_t> sums(3);
    {
        std::vector<std::jthread> threads;
        for (int self = 0; self < 3; ++self) {
            threads.emplace_back([&, self] {
                const auto mine = world.form(self, {2, 0, 1}, Generation{1});
                ASSERT_TRUE(mine);
                EXPECT_EQ((*mine)->rank(), (self + 1) % 3);
                std::int64_t value[] = {10 + self};
                ASSERT_TRUE((*mine)->all_reduce(value, ReduceOp::sum, deadline_in(10s)));
                sums[self] = value[0];
            });
        }
    }
    EXPECT_EQ(sums, std::vector<std::int64_t>(3, 33));
}

TEST(ThreadWorld, APartOfTheRanksMayForm) {
    ThreadWorld world(3);
    auto first = world.form(2, {2, 1}, Generation{4}).value();
    auto second = world.form(1, {2, 1}, Generation{4}).value();
    std::jthread other([&] { EXPECT_TRUE(second->barrier(deadline_in(10s))); });
    EXPECT_TRUE(first->barrier(deadline_in(10s)));
}

TEST(ThreadWorld, ALaterGenerationLeavesTheEarlierOneAlone) {
    ThreadWorld world(2);
    auto old = world.form(0, {0, 1}, Generation{1}).value();
    auto fresh = world.form(1, {0, 1}, Generation{2}).value();

    EXPECT_EQ(world.form(1, {0, 1}, Generation{1}).error(), Errc::stale_generation);
    EXPECT_EQ(old->barrier(deadline_in(50ms)).error(), Errc::deadline_exceeded);
    auto late = world.form(0, {0, 1}, Generation{2}).value();
    std::jthread other([&] { EXPECT_TRUE(late->barrier(deadline_in(10s))); });
    EXPECT_TRUE(fresh->barrier(deadline_in(10s)));
}

TEST(ThreadWorld, RefusesWhatCannotBe) {
    ThreadWorld world(2);
    EXPECT_EQ(world.form(1, {0}, Generation{1}).error(), Errc::internal);
    auto mine = world.form(0, {0, 1}, Generation{1}).value();
    EXPECT_EQ(world.form(0, {0, 1}, Generation{1}).error(), Errc::internal);
    EXPECT_EQ(world.form(1, {1, 0}, Generation{1}).error(), Errc::internal);
}

TEST(ThreadWorld, WorldsHaveDifferentIds) {
    EXPECT_NE(ThreadWorld(1).id(), 0u);
    EXPECT_NE(ThreadWorld(1).id(), ThreadWorld(1).id());
}

}  // namespace
}  // namespace kvgrid::comm
