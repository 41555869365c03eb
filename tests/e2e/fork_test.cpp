// Branches of a sequence share pages until one of them writes, and every page comes back when all are closed.
#include <gtest/gtest.h>

#include "client/cli/demo/long_context.h"
#include "client/cli/occupancy_text.h"
#include "tests/e2e/e2e_cluster.h"

namespace kvgrid::e2e {
namespace {

constexpr int kTokens = 150;  // ends in the middle of a page

ModelSpec small_spec() {
    ModelSpec spec{.name = "small",
                   .layers = {},
                   .query_heads = 9,
                   .kv_heads = 3,
                   .head_dim = 64,
                   .dtype = Dtype::bf16,
                   .scale = 0.125};
    spec.layers = {{.kv_layer = 0}, {.kv_layer = 1}};
    return spec;
}

void extend(Client& client, const ModelSpec& spec, const std::vector<StepPart>& parts, std::uint64_t run) {
    int tokens = 0;
    for (const StepPart& part : parts) tokens += part.tokens;
    Step step = client.begin(parts).value();
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        step.layer(layer, cli::new_tokens(spec, run, layer, tokens).input()).value();
    }
    step.commit().value();
}

TEST(Fork, EveryPageComesBack) {
    E2eCluster cluster(4);
    Client& client = cluster.client();
    const ModelSpec spec = small_spec();
    const RegisteredModel model =
        client.register_model(spec, {.grid = {2, 2}, .pool_bytes_per_worker = 16 << 20}).value();
    Sequence trunk = client.open(model).value();
    cli::write_chunk(client, spec, trunk, cli::context_chunk(spec, 0, kTokens), kTokens).value();
    const cli::PageTotals before = cli::page_totals(client.occupancy().value(), model.id);

    Sequence branch = trunk.fork().value();
    const cli::PageTotals forked = cli::page_totals(client.occupancy().value(), model.id);
    extend(client, spec, {{&trunk, 3}, {&branch, 5}}, 1);
    const cli::PageTotals extended = cli::page_totals(client.occupancy().value(), model.id);

    EXPECT_EQ(forked.used, before.used);
    EXPECT_EQ(forked.shared, before.used);
    const auto streams = static_cast<std::uint64_t>(spec.kv_heads) * spec.layer_count();
    EXPECT_EQ(extended.used, before.used + streams);  // each stream's last page was copied once
    EXPECT_EQ(trunk.inspect().value().length, kTokens + 3);
    EXPECT_EQ(branch.inspect().value().length, kTokens + 5);

    branch.close().value();
    trunk.close().value();
    EXPECT_TRUE(cli::all_free(client.occupancy().value()));
}

TEST(Fork, AnAbortedStepLeavesNothing) {
    E2eCluster cluster(4);
    Client& client = cluster.client();
    const ModelSpec spec = small_spec();
    const RegisteredModel model =
        client.register_model(spec, {.grid = {2, 2}, .pool_bytes_per_worker = 16 << 20}).value();
    Sequence sequence = client.open(model).value();
    {
        const StepPart part{&sequence, kTokens};
        Step step = client.begin({&part, 1}).value();
        step.layer(0, cli::new_tokens(spec, 1, 0, kTokens).input()).value();
    }

    EXPECT_EQ(sequence.inspect().value().length, 0);
    EXPECT_TRUE(cli::all_free(client.occupancy().value()));
}

}  // namespace
}  // namespace kvgrid::e2e
