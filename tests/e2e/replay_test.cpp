// A real model's q, k and v give the model's own attention output, however the cache is split and whatever its dtype. Every row is
// checked against fp64 attention and against the recorded output; client/cli/replay/replay.h derives the tolerances.
#include <gtest/gtest.h>

#include "client/cli/occupancy_text.h"
#include "client/cli/replay/replay.h"
#include "client/cli/replay/replay_text.h"
#include "tests/e2e/e2e_cluster.h"
#include "tests/monitor/scrape.h"

namespace kvgrid::e2e {
namespace {

cli::ReplayReport replay_on(Client& client, const GridShape& grid, Dtype dtype, const analysis::Trace& trace) {
    const RegisteredModel model =
        client
            .register_model(cli::replay_spec(trace, dtype),
                            {.grid = grid, .pool_bytes_per_worker = cli::replay_pool_bytes(trace, dtype, grid)})
            .value();
    return cli::replay(client, model, trace).value();
}

void expect_every_row_right(const cli::ReplayReport& report) {
    EXPECT_TRUE(report.passed()) << cli::replay_text(report);
    const std::int64_t rows = std::int64_t{real_trace().token_count()} * real_trace().spec.query_heads;
    for (const cli::ReplayLayer& layer : report.layers) {
        EXPECT_EQ(layer.from_reference.rows, rows);
        EXPECT_EQ(layer.from_model.rows, rows);
    }
}

class ReplayOnGrid : public testing::TestWithParam<GridShape> {};

TEST_P(ReplayOnGrid, GivesTheModelsOwnOutput) {
    E2eCluster cluster(GetParam().workers());

    const auto report = replay_on(cluster.client(), GetParam(), Dtype::f32, real_trace());

    expect_every_row_right(report);
    EXPECT_TRUE(cli::all_free(cluster.client().occupancy().value()));
}

INSTANTIATE_TEST_SUITE_P(Grids, ReplayOnGrid,
                         testing::Values(GridShape{1, 1}, GridShape{2, 2}, GridShape{3, 1}, GridShape{1, 5}),
                         [](const auto& grid) {
                             return std::to_string(grid.param.head_parts) + "x" +
                                    std::to_string(grid.param.sequence_parts);
                         });

TEST(Replay, IsRightInHalfPrecisionToo) {
    E2eCluster cluster(4);

    for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
        expect_every_row_right(replay_on(cluster.client(), {2, 2}, dtype, real_trace()));
    }
}

// Only GPUs keep K and V in fp8.
TEST(Replay, IsRightOverWhatFp8PagesKeep) {
    E2eCluster cluster(1);
    const analysis::Trace trace = real_trace();
    const ModelSpec spec = cli::replay_spec(trace, Dtype::bf16, KvDtype::fp8_e4m3);
    const auto model = cluster.client().register_model(
        spec, {.grid = {1, 1}, .pool_bytes_per_worker = cli::replay_pool_bytes(trace, Dtype::bf16, {1, 1})});
    const std::string worker = cluster.client().status().value().workers.at(0).http_endpoint;
    const bool has_gpu = tests::scrape(worker).names.contains("kvgrid_gpu_layer_calls_total");
    ASSERT_EQ(model.ok(), has_gpu);
    if (!has_gpu) GTEST_SKIP() << "the worker has no GPU: " << model.error().message;

    const cli::ReplayReport report = cli::replay(cluster.client(), *model, trace).value();

    expect_every_row_right(report);
    for (const cli::ReplayLayer& layer : report.layers) {
        ASSERT_TRUE(layer.from_sent.has_value());
        EXPECT_GT(layer.from_sent->relative_rms(), 0.001);  // lossy
        EXPECT_LT(layer.from_sent->relative_rms(), 0.125);  // two roundings of e4m3, of K and of V
    }
}

TEST(Replay, FindsASingleWrongRow) {
    E2eCluster cluster(1);
    analysis::Trace trace = real_trace();
    const std::size_t row = 200 * trace.spec.query_heads + 4;
    trace.layers[1].o[row * trace.spec.head_dim + 7] += 0.01f;

    const auto report = replay_on(cluster.client(), {1, 1}, Dtype::f32, trace);

    EXPECT_FALSE(report.passed());
    EXPECT_EQ(report.layers[1].from_model.rows_outside, 1);
    EXPECT_EQ(report.layers[1].from_reference.rows_outside, 0);
}

}  // namespace
}  // namespace kvgrid::e2e
