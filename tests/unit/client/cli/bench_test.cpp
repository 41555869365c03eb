// What a measurement says is computed from what was measured, and the pool that is asked for holds what is written.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "client/cli/bench/bench_text.h"

namespace kvgrid::cli {
namespace {

BenchPlan small_plan() {
    BenchPlan plan;
    plan.spec = {.name = "m",
                 .layers = {{.kv_layer = 0}, {.kv_layer = 1}},
                 .query_heads = 8,
                 .kv_heads = 2,
                 .head_dim = 64,
                 .dtype = Dtype::bf16,
                 .scale = 1};
    plan.clients = 2;
    plan.batch = 3;
    plan.context = 640;
    plan.prefill_tokens = 64;
    plan.steps = 10;
    return plan;
}

TEST(Bench, ThePoolHoldsEveryTokenHoweverTheGridIsSplit) {
    const BenchPlan plan = small_plan();
    const std::int64_t tokens = plan.context + plan.prefill_tokens + plan.steps;
    const auto wanted = static_cast<std::uint64_t>(tokens) * plan.clients * plan.batch * plan.spec.token_bytes();
    for (const GridShape grid : {GridShape{1, 1}, GridShape{2, 1}, GridShape{1, 3}, GridShape{2, 2}})
        EXPECT_GE(plan.pool_bytes_per_worker(grid) * grid.workers(), wanted);
}

TEST(Bench, SaysTokensASecondAndTheFloor) {
    BenchReport report{.model = "m", .grid = {1, 2}, .prefill_seconds = 0.5, .decode_seconds = 2, .decoded_tokens = 60};
    report.layer_calls.add(std::chrono::milliseconds(2));
    report.layer_calls.add(std::chrono::milliseconds(4));
    report.grid_layer_calls = 4;
    report.join_bytes = 400;
    report.memory_bytes_per_second = 1e9;
    const BenchPlan plan = small_plan();

    const auto json = bench_json(plan, report);

    EXPECT_DOUBLE_EQ(json["prefill"]["tokens_per_second"], 128);
    EXPECT_DOUBLE_EQ(json["decode"]["tokens_per_second"], 30);
    EXPECT_EQ(json["join_bytes_per_layer_call"], 100);
    const double call_bytes = 3.0 * 640 * 2 * 64 * 2 * 2;  // sequences, tokens, K and V, elements, bytes, heads
    EXPECT_EQ(json["kv_bytes_per_layer_call"], call_bytes);
    EXPECT_DOUBLE_EQ(json["floor_ms"], call_bytes / 1e9 * 1e3);
    EXPECT_EQ(plan.kv_bytes(), 2 * 2 * call_bytes);  // clients, layers
    EXPECT_NE(bench_text(plan, report).find("30.0 tokens/s"), std::string::npos) << bench_text(plan, report);
}

TEST(Bench, SaysNoFloorWhereMemoryIsNotIt) {
    EXPECT_TRUE(bench_json(small_plan(), {})["floor_ms"].is_null());
    EXPECT_EQ(bench_text(small_plan(), {}).find("floor"), std::string::npos);
}

TEST(Latencies, AHistogramCountsEveryCallOnce) {
    Latencies latencies;
    for (const int microseconds : {1, 3, 3, 900, 1'000'000}) latencies.add(std::chrono::microseconds(microseconds));

    const auto buckets = latencies.histogram();

    std::int64_t total = 0;
    for (const auto& bucket : buckets) total += bucket.count;
    EXPECT_EQ(total, 5);
    EXPECT_EQ(buckets.front().count, 1);
    EXPECT_GT(buckets.back().below_ms, 1'000);
    EXPECT_LE(buckets.back().below_ms, 2'100);
    EXPECT_TRUE(Latencies().histogram().empty());
}

}  // namespace
}  // namespace kvgrid::cli
