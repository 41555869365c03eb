// Every head and every page has exactly one owner, whatever the shape, and no owner has much more than another. Shown
// for all shapes up to 32 KV heads.

#include "core/sharding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/unit/core/model_spec_fixture.h"

namespace kvgrid {
namespace {

ModelSpec spec_with(int kv_heads, int group = 3) {
    ModelSpec spec = small_spec();
    spec.kv_heads = kv_heads;
    spec.query_heads = kv_heads * group;
    return spec;
}

TEST(Sharding, HeadPartsPartitionTheHeadsExactly) {
    for (int kv_heads = 1; kv_heads <= 32; ++kv_heads) {
        const ModelSpec spec = spec_with(kv_heads);
        for (int head_parts = 1; head_parts <= kv_heads; ++head_parts) {
            const GridShape grid{head_parts, 2};
            int next = 0;
            int least = kv_heads, most = 0;
            for (int part = 0; part < head_parts; ++part) {
                const HeadRange heads = kv_heads_of_part(spec, grid, part);
                ASSERT_EQ(heads.first, next);
                for (int head = heads.first; head < heads.first + heads.count; ++head) {
                    ASSERT_EQ(head * head_parts / kv_heads, part);
                }
                const HeadRange query_heads = query_heads_of_part(spec, grid, part);
                ASSERT_EQ(query_heads.first, heads.first * 3);
                ASSERT_EQ(query_heads.count, heads.count * 3);
                next += heads.count;
                least = std::min(least, heads.count);
                most = std::max(most, heads.count);
            }
            ASSERT_EQ(next, kv_heads);
            ASSERT_GE(least, 1);
            ASSERT_LE(most - least, 1);
            ASSERT_EQ(kv_heads_per_part_max(spec, grid), most);
        }
    }
}

TEST(Sharding, APartThatTheGridDoesNotHaveIsABrokenPromise) {
    EXPECT_THROW(kv_heads_of_part(spec_with(4), {2, 1}, 2), Fatal);
    EXPECT_THROW(kv_heads_of_part(spec_with(4), {2, 1}, -1), Fatal);
    EXPECT_THROW(kv_heads_of_part(spec_with(4), {0, 1}, 0), Fatal);
    EXPECT_THROW(spread_of(SequenceId{1}, {1, 0}), Fatal);
    EXPECT_THROW(default_grid_shape(spec_with(4), 0), Fatal);
}

TEST(Sharding, RanksAndPartsNameEachOther) {
    const GridShape grid{3, 4};
    EXPECT_EQ(grid.workers(), 12);
    for (int rank = 0; rank < grid.workers(); ++rank) {
        EXPECT_EQ(grid.rank(grid.head_part(rank), grid.sequence_part(rank)), rank);
    }
    EXPECT_EQ(grid.head_part(4), grid.head_part(7));  // whose outputs are merged are neighbours
}

TEST(Sharding, PagesRotateOverTheSequencePartsFromTheSpreadOn) {
    const GridShape grid{1, 3};
    for (int spread = 0; spread < 3; ++spread) {
        for (std::int64_t page = 0; page < 7; ++page) {
            EXPECT_EQ(sequence_part_of_page(page, spread, grid), (page + spread) % 3);
        }
    }
}

TEST(Sharding, FirstPagesOfManySequencesSpreadEvenlyAlsoWhenIdsComeInStrides) {
    constexpr int kSequenceCount = 3000;
    for (const int sequence_parts : {1, 2, 3, 8}) {
        for (const std::uint64_t stride : {1, 2, 3, 8, 64}) {
            std::vector<int> load(sequence_parts, 0);
            for (std::uint64_t i = 1; i <= kSequenceCount; ++i) {
                const int spread = spread_of(SequenceId{i * stride}, {1, sequence_parts});
                ASSERT_GE(spread, 0);
                ASSERT_LT(spread, sequence_parts);
                ++load[spread];
            }
            // Of a fair draw: mean n/p, deviation below sqrt(n/p); five deviations, and the ids never change.
            const double mean = double{kSequenceCount} / sequence_parts;
            for (const int count : load)
                EXPECT_NEAR(count, mean, 5 * std::sqrt(mean)) << sequence_parts << ' ' << stride;
        }
    }
}

TEST(Sharding, TheSpreadOfAnIdNeverChangesBetweenVersions) {
    // Ranks of different builds must agree; these are the values of the first release.
    const GridShape grid{1, 1 << 20};
    EXPECT_EQ(spread_of(SequenceId{0}, grid), 0xe220a8397b1dcdaf % (1 << 20));  // splitmix64's first output for seed 0
    EXPECT_EQ(spread_of(SequenceId{0x9e3779b97f4a7c15}, grid), 0x6e789e6aa1b965f4 % (1 << 20));  // its second
}

TEST(GridShape, TheDefaultHasAsManyHeadPartsAsDivideHeadsAndWorkers) {
    EXPECT_EQ(default_grid_shape(spec_with(8), 4), (GridShape{4, 1}));
    EXPECT_EQ(default_grid_shape(spec_with(8), 16), (GridShape{8, 2}));
    EXPECT_EQ(default_grid_shape(spec_with(8), 6), (GridShape{2, 3}));
    EXPECT_EQ(default_grid_shape(spec_with(3), 4), (GridShape{1, 4}));
    EXPECT_EQ(default_grid_shape(spec_with(1), 7), (GridShape{1, 7}));
    for (int kv_heads = 1; kv_heads <= 32; ++kv_heads) {
        for (int workers = 1; workers <= 64; ++workers) {
            const ModelSpec spec = spec_with(kv_heads);
            const GridShape shape = default_grid_shape(spec, workers);
            ASSERT_EQ(kv_heads % shape.head_parts, 0);
            ASSERT_TRUE(validated_grid_shape(spec, workers, shape).ok());
        }
    }
}

TEST(GridShape, NoPartsMeanTheDefault) {
    const auto shape = validated_grid_shape(spec_with(8), 6, {0, 0});

    ASSERT_TRUE(shape.ok());
    EXPECT_EQ(*shape, (GridShape{2, 3}));
}

TEST(GridShape, HeadPartsNeedNotDivideTheHeads) {
    EXPECT_TRUE(validated_grid_shape(spec_with(8), 3, {3, 1}).ok());
}

TEST(GridShape, ShapesThatCannotHoldAreRefused) {
    struct Case {
        int workers;
        GridShape shape;
        const char* message;
    };
    const Case cases[] = {
        {0, {0, 0}, "workers is 0: must be at least 1"},
        {-4, {2, 2}, "workers is -4: must be at least 1"},
        {4, {0, 4}, "head_parts is 0: must be at least 1, or 0 together with sequence_parts for the default"},
        {4, {-2, -2}, "head_parts is -2: must be at least 1, or 0 together with sequence_parts for the default"},
        {4, {4, 0}, "sequence_parts is 0: must be at least 1, or 0 together with head_parts for the default"},
        {4, {2, 1}, "head_parts x sequence_parts is 2 x 1: must make up the 4 workers"},
        {16, {16, 1}, "head_parts is 16: must be at most the 8 KV heads, so that every part holds one"},
        // 65536 * 65537 is 65536 in 32 bits.
        {65536, {65536, 65537}, "head_parts x sequence_parts is 65536 x 65537: must make up the 65536 workers"},
    };
    for (const Case& refused : cases) {
        const auto shape = validated_grid_shape(spec_with(8), refused.workers, refused.shape);
        ASSERT_FALSE(shape.ok()) << refused.message;
        EXPECT_EQ(shape.error(), Errc::invalid_argument);
        EXPECT_EQ(shape.error().message, refused.message);
    }
}

TEST(GridShape, TheLargestNumbersDoNotOverflow) {
    constexpr int kMost = std::numeric_limits<int>::max();
    EXPECT_FALSE(validated_grid_shape(spec_with(8), kMost, {kMost, kMost}).ok());
    EXPECT_TRUE(validated_grid_shape(spec_with(8), kMost, {1, kMost}).ok());
    EXPECT_EQ(kv_heads_of_part(spec_with(8), {kMost, 1}, kMost - 1).count, 0);
}

}  // namespace
}  // namespace kvgrid
