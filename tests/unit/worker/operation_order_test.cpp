// Operations are applied once each and by their numbers, in whichever order they come.

#include "worker/operation_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace kvgrid::worker {
namespace {

Operation operation(std::uint64_t number) {
    return {number, ReportOccupancy{}, {}};
}

struct OrderTest : testing::Test {
    Status take(std::uint64_t number) {
        return order.take(operation(number), [this](const Operation& next) { applied.push_back(next.number); });
    }

    OperationOrder order;
    std::vector<std::uint64_t> applied;
};

TEST_F(OrderTest, WhatComesEarlyWaits) {
    ASSERT_TRUE(take(2));
    ASSERT_TRUE(take(3));
    EXPECT_TRUE(applied.empty());
    ASSERT_TRUE(take(1));
    EXPECT_EQ(applied, (std::vector<std::uint64_t>{1, 2, 3}));
}

TEST_F(OrderTest, AnyOrderOfComingGivesTheSame) {
    std::mt19937 random(5);
    for (int run = 0; run < 50; ++run) {
        std::vector<std::uint64_t> numbers(20);
        std::iota(numbers.begin(), numbers.end(), 1);
        std::ranges::shuffle(numbers, random);
        order = {};
        applied.clear();
        for (const std::uint64_t number : numbers) ASSERT_TRUE(take(number));
        std::ranges::sort(numbers);
        EXPECT_EQ(applied, numbers);
    }
}

TEST_F(OrderTest, WhatComesTwiceIsCorrupt) {
    ASSERT_TRUE(take(1));
    ASSERT_TRUE(take(3));
    EXPECT_EQ(take(1).error(), Errc::corrupt);
    EXPECT_EQ(take(3).error(), Errc::corrupt);
    ASSERT_TRUE(take(2));
    EXPECT_EQ(applied, (std::vector<std::uint64_t>{1, 2, 3}));
}

}  // namespace
}  // namespace kvgrid::worker
