// No two that are taken overlap, and all that is given back becomes one range again, in any order.
#include "core/free_ranges.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace kvgrid {
namespace {

TEST(FreeRanges, TakesTheFirstThatFits) {
    FreeRanges free;
    EXPECT_FALSE(free.take(1));
    free.give_back(10, 20);
    EXPECT_EQ(free.take(5), 10u);
    EXPECT_EQ(free.take(15), 15u);
    EXPECT_FALSE(free.take(1));
}

TEST(FreeRanges, WhatIsGivenBackGrowsTogether) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    constexpr std::size_t kCount = 1000;
    FreeRanges free;
    free.give_back(0, kCount);
    std::vector<bool> is_taken(kCount);
    std::vector<std::pair<std::size_t, std::size_t>> held;
    for (int i = 0; i < 3000; ++i) {
        if (random() % 2 == 0 || held.empty()) {
            const std::size_t count = 1 + random() % 40;
            const auto first = free.take(count);
            if (!first) continue;
            for (std::size_t at = *first; at < *first + count; ++at) {
                ASSERT_FALSE(is_taken[at]);
                is_taken[at] = true;
            }
            held.emplace_back(*first, count);
        } else {
            std::swap(held[random() % held.size()], held.back());
            const auto [first, count] = held.back();
            held.pop_back();
            for (std::size_t at = first; at < first + count; ++at) is_taken[at] = false;
            free.give_back(first, count);
        }
    }
    for (const auto& [first, count] : held) free.give_back(first, count);
    EXPECT_EQ(free.take(kCount), 0u);
}

}  // namespace
}  // namespace kvgrid
