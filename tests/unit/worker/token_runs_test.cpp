// The runs of all sequence parts together are the tokens asked for, each once, cut at page borders.

#include <gtest/gtest.h>

#include "core/window.h"
#include "worker/token_runs.h"

namespace kvgrid::worker {
namespace {

TEST(TokenRuns, PartitionTheTokensOverTheParts) {
    for (int parts : {1, 2, 3, 5}) {
        const GridShape grid{1, parts};
        for (int spread : {0, 1, parts - 1}) {
            for (std::int64_t first : {0, 1, 63, 64, 200}) {
                for (std::int64_t count : {0, 1, 64, 65, 500}) {
                    std::vector<int> seen(count, 0);
                    for (int part = 0; part < parts; ++part) {
                        std::int64_t tokens = 0;
                        for (const TokenRun& run : token_runs_of_part(first, count, spread, grid, part)) {
                            EXPECT_EQ(sequence_part_of_page(run.page(), spread, grid), part);
                            EXPECT_LE(run.slot() + run.token_count, kPageTokens);
                            for (int i = 0; i < run.token_count; ++i) ++seen.at(run.first_token - first + i);
                            tokens += run.token_count;
                        }
                        EXPECT_EQ(tokens, tokens_of_part(first, count, spread, grid, part));
                    }
                    EXPECT_EQ(seen, std::vector<int>(count, 1));
                }
            }
        }
    }
}

TEST(Windows, KeepEveryTokenThatALaterQuerySees) {
    for (std::int64_t tokens : {1, 2, 63, 64, 65, 200}) {
        for (std::int64_t length = 0; length < 400; ++length) {
            const std::int64_t kept = first_kept_token({tokens, 0}, length);
            EXPECT_EQ(kept % kPageTokens, 0);
            EXPECT_LE(kept, std::max<std::int64_t>(
                                0, length - tokens + 1));  // the query at `length` sees tokens after length - tokens
            EXPECT_LE(kept, length / kPageTokens * kPageTokens);  // the page that is being filled stays
        }
    }
}

TEST(Windows, TheSmallerOneCountsWithItsSinks) {
    const LayerSpec sliding{.kv_layer = 0, .window = 100, .sinks = 4};
    const LayerSpec full{};
    EXPECT_EQ(window_of_layer(sliding, {}).tokens, 100);
    EXPECT_EQ(window_of_layer(sliding, {}).sinks, 4);
    EXPECT_EQ(window_of_layer(sliding, {200, 9}).tokens, 100);
    EXPECT_EQ(window_of_layer(sliding, {200, 9}).sinks, 4);
    EXPECT_EQ(window_of_layer(sliding, {50, 9}).sinks, 9);
    EXPECT_EQ(window_of_layer(full, {50, 9}).tokens, 50);
    EXPECT_FALSE(window_of_layer(full, {}).slides());
}

TEST(Windows, AKvLayerKeepsWhatItsWidestReaderSees) {
    ModelSpec spec{.name = "w",
                   .layers = {{0, 50, 2}, {0, 80, 1}, {2, 30, 0}, {2, 0, 0}},
                   .query_heads = 1,
                   .kv_heads = 1,
                   .head_dim = 32,
                   .scale = 1};
    EXPECT_EQ(window_of_kv_layer(spec, 0, {}).tokens, 80);
    EXPECT_EQ(window_of_kv_layer(spec, 0, {}).sinks, 2);
    EXPECT_FALSE(window_of_kv_layer(spec, 2, {}).slides());  // one reader sees everything
    EXPECT_EQ(window_of_kv_layer(spec, 2, {60, 0}).tokens, 60);
}

}  // namespace
}  // namespace kvgrid::worker
