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

TEST(OperationOrder, WhatComesEarlyWaits) {
    OperationOrder order;
    EXPECT_TRUE(order.take(operation(2)).value().empty());
    EXPECT_TRUE(order.take(operation(3)).value().empty());
    const auto next = order.take(operation(1)).value();
    ASSERT_EQ(next.size(), 3u);
    for (std::uint64_t i = 0; i < 3; ++i) EXPECT_EQ(next[i].number, i + 1);
}

TEST(OperationOrder, AnyOrderOfComingGivesTheSame) {
    std::mt19937 random(5);
    for (int run = 0; run < 50; ++run) {
        std::vector<std::uint64_t> numbers(20);
        std::iota(numbers.begin(), numbers.end(), 1);
        std::ranges::shuffle(numbers, random);
        OperationOrder order;
        std::vector<std::uint64_t> applied;
        for (const std::uint64_t number : numbers) {
            for (const Operation& next : order.take(operation(number)).value()) applied.push_back(next.number);
        }
        std::ranges::sort(numbers);
        EXPECT_EQ(applied, numbers);
    }
}

TEST(OperationOrder, WhatComesTwiceIsCorrupt) {
    OperationOrder order;
    ASSERT_TRUE(order.take(operation(1)));
    ASSERT_TRUE(order.take(operation(3)));
    EXPECT_EQ(order.take(operation(1)).error(), Errc::corrupt);
    EXPECT_EQ(order.take(operation(3)).error(), Errc::corrupt);
    EXPECT_EQ(order.take(operation(2)).value().size(), 2u);
}

}  // namespace
}  // namespace kvgrid::worker
