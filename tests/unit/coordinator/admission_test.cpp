// What admission lets in has room, whichever sequence part its first page falls to; without windows, nothing that has room for sure is
// refused. Shown against pages that are counted one by one, on random models, shapes and lengths.

#include "coordinator/admission.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <set>

#include "tests/unit/core/model_spec_fixture.h"

namespace kvgrid::coordinator {
namespace {

constexpr std::int64_t kPlenty = std::int64_t{1} << 50;

// Whether a query at or after `length` of some layer that reads this KV layer sees the token.
bool kept(const ModelSpec& spec, int kv_layer, const ExpectedSequence& expected, std::int64_t length,
          std::int64_t token) {
    for (const LayerSpec& layer : spec.layers) {
        if (layer.kv_layer != kv_layer) continue;
        std::int64_t window = layer.window, sinks = layer.window > 0 ? layer.sinks : 0;
        if (expected.window.tokens > 0 && (window == 0 || expected.window.tokens <= window)) {
            window = expected.window.tokens;
            sinks = expected.window.sinks;
        }
        if (window == 0 || token > length - window || token < sinks) return true;
    }
    return false;
}

// Pages of a sequence of this length on one rank, counted one by one.
std::int64_t count_pages(const ModelSpec& spec, const GridShape& grid, int rank, int spread, std::int64_t length,
                         const ExpectedSequence& expected) {
    std::int64_t pages = 0;
    for (const int kv_layer : spec.kv_layers()) {
        std::set<std::int64_t> of_layer;
        for (std::int64_t token = 0; token < length; ++token) {
            const std::int64_t page = token / kPageTokens;
            const bool here = sequence_part_of_page(page, spread, grid) == grid.sequence_part(rank);
            if (here && kept(spec, kv_layer, expected, length, token)) of_layer.insert(page);
        }
        pages += static_cast<std::int64_t>(of_layer.size());
    }
    return pages * kv_heads_of_part(spec, grid, grid.head_part(rank)).count;
}

int below(std::mt19937_64& random, int end) {
    return std::uniform_int_distribution<int>(0, end - 1)(random);
}

ModelSpec random_spec(std::mt19937_64& random, bool windows) {
    ModelSpec spec = small_spec();
    spec.kv_heads = 1 + below(random, 4);
    spec.query_heads = spec.kv_heads;
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        if (windows && below(random, 2)) spec.layers[layer].window = 1 + below(random, 300);
        if (spec.layers[layer].window > 0) spec.layers[layer].sinks = below(random, 100);
    }
    if (below(random, 2)) spec.layers[3].kv_layer = 0;
    return spec;
}

GridShape random_grid(std::mt19937_64& random, const ModelSpec& spec) {
    return {1 + below(random, spec.kv_heads), 1 + below(random, 4)};
}

TEST(Admission, WithoutWindowsThePagesAreThoseOfTheWorstSpreadExactly) {
    std::mt19937_64 random(20240611);
    for (int trial = 0; trial < 300; ++trial) {
        const ModelSpec spec = random_spec(random, false);
        const GridShape grid = random_grid(random, spec);
        const ExpectedSequence expected{.tokens = below(random, 1000)};
        for (int rank = 0; rank < grid.workers(); ++rank) {
            std::int64_t worst = 0;
            for (int spread = 0; spread < grid.sequence_parts; ++spread) {
                worst = std::max(worst, count_pages(spec, grid, rank, spread, expected.tokens, expected));
            }
            ASSERT_EQ(pages_needed(spec, grid, grid.head_part(rank), expected), worst)
                << "trial " << trial << ", " << expected.tokens << " tokens, rank " << rank;
        }
    }
}

TEST(Admission, WithWindowsThePagesAreEnoughAtEveryLengthOnTheWay) {
    std::mt19937_64 random(20240612);
    for (int trial = 0; trial < 60; ++trial) {
        const ModelSpec spec = random_spec(random, true);
        const GridShape grid = random_grid(random, spec);
        const std::int64_t window = below(random, 2) ? 1 + below(random, 200) : 0;
        const ExpectedSequence expected{.tokens = 1 + below(random, 600),
                                        .window = {window, window > 0 ? below(random, 100) : 0}};
        const int rank = below(random, grid.workers());
        const int spread = below(random, grid.sequence_parts);
        const std::int64_t needed = pages_needed(spec, grid, grid.head_part(rank), expected);
        for (std::int64_t length = 0; length <= expected.tokens; ++length) {
            ASSERT_LE(count_pages(spec, grid, rank, spread, length, expected), needed)
                << "trial " << trial << ", length " << length << " of " << expected.tokens << ", window " << window;
        }
    }
}

TEST(Admission, WhatIsSaidToFitFitsAndOnePageMoreDoesNot) {
    std::mt19937_64 random(20240613);
    for (int trial = 0; trial < 300; ++trial) {
        const ModelSpec spec = random_spec(random, trial % 2 == 1);
        const GridShape grid = random_grid(random, spec);
        std::vector<std::int64_t> free_pages;
        for (int rank = 0; rank < grid.workers(); ++rank) free_pages.push_back(below(random, 200));

        ExpectedSequence expected;
        expected.tokens = tokens_that_fit(spec, grid, free_pages, expected);
        ASSERT_TRUE(admit(spec, grid, free_pages, expected)) << "trial " << trial;
        if (expected.tokens == kTokensMax) continue;
        ++expected.tokens;
        const auto refused = admit(spec, grid, free_pages, expected);
        ASSERT_EQ(refused.error(), Errc::no_room) << "trial " << trial;
        ASSERT_NE(refused.error().message.find("at most " + std::to_string(expected.tokens - 1) + " tokens"),
                  std::string::npos)
            << refused.error().message;
    }
}

TEST(Admission, TheBorderIsExact) {
    const ModelSpec spec = small_spec();  // 4 KV layers, 2 KV heads
    const GridShape grid{2, 2};           // one head each: 4 pages for each 128 tokens
    EXPECT_TRUE(admit(spec, grid, std::vector<std::int64_t>{8, 8, 8, 8}, {.tokens = 256}));
    EXPECT_FALSE(admit(spec, grid, std::vector<std::int64_t>{8, 8, 8, 8}, {.tokens = 257}));
    EXPECT_FALSE(admit(spec, grid, std::vector<std::int64_t>{8, 8, 7, 8}, {.tokens = 256}));
    EXPECT_FALSE(admit(spec, grid, std::vector<std::int64_t>{3, 8, 8, 8}, {.tokens = 1})) << "it may fall to that part";
    EXPECT_TRUE(admit(spec, grid, std::vector<std::int64_t>{0, 0, 0, 0}, {.tokens = 0}));
}

TEST(Admission, AWindowMakesAnyNumberOfTokensFit) {
    const ModelSpec spec = small_spec();
    const std::vector<std::int64_t> one_worker{3 * 8};  // window of 65 tokens in 2 pages, 1 page of sinks; 8 streams
    EXPECT_TRUE(admit(spec, {1, 1}, one_worker, {.tokens = kTokensMax, .window = {65, 4}}));
    EXPECT_FALSE(admit(spec, {1, 1}, one_worker, {.tokens = kTokensMax, .window = {66, 4}}));
    EXPECT_EQ(tokens_that_fit(spec, {1, 1}, one_worker, {.window = {65, 4}}), kTokensMax);
}

TEST(Admission, TheLargestNumbersDoNotOverflow) {
    ModelSpec spec = small_spec();
    spec.layers[0] = {0, std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::max()};
    EXPECT_TRUE(admit(spec, {1, 1}, std::vector<std::int64_t>{kPlenty}, {.tokens = kTokensMax}));
    EXPECT_FALSE(admit(spec, {1, 1}, std::vector<std::int64_t>{1}, {.tokens = kTokensMax}));
}

}  // namespace
}  // namespace kvgrid::coordinator
