// Layer calls of different clients that wait at the same layer run as one operation, and each client gets its own rows.

#include <gtest/gtest.h>

#include "tests/grid/driver.h"
#include "tests/grid/test_device.h"
#include "tests/grid/thread_grid.h"

namespace kvgrid::tests {
namespace {

using worker::StepKind;

constexpr ModelId kModel{1};

TEST(Merging, ConcurrentClientsShareOperationsAndGetTheirOwnRows) {
    const ModelSpec spec = make_spec(3, 6, 3, 32, widest_dtype());
    ThreadGrid grid(4, 64 << 20);
    ASSERT_TRUE(grid.submit(worker::AddModel{kModel, spec, {2, 2}, 0}).status.ok());
    ReferenceCache reference(spec);
    std::mt19937 random(3);

    constexpr int kClients = 8;
    std::vector<StepId> steps(kClients);
    std::vector<int> tokens(kClients);
    for (int c = 0; c < kClients; ++c) {
        const SequenceId id{static_cast<std::uint64_t>(c + 1)};
        ASSERT_TRUE(grid.submit(worker::OpenSequence{id, kModel, {}}).status.ok());
        reference.open(id, {});
        EXPECT_EQ(run_step(grid, reference, kModel, spec, {{id, 20 + 30 * c}}, StepKind::attend, random), "");
        tokens[c] = c == 5 ? 300 : 1 + c % 3;  // one is too large to be merged
        auto [step, begun] =
            grid.begin({.step = {}, .model = kModel, .kind = StepKind::attend, .parts = {{id, tokens[c]}}}, c);
        ASSERT_TRUE(begun.status.ok());
        steps[c] = step;
    }
    // All clients send layer 0 at once; each sends its next layer as soon as it has its answer, as clients do.
    int finished = 0;
    std::vector<std::string> wrong(kClients);
    std::function<void(int, int)> call = [&](int client, int layer) {
        const LayerTensors tensors = random_layer(random, spec, layer, tokens[client], StepKind::attend);
        grid.lead().layer(steps[client], layer, comm::Payload::copy_of(tensors.bytes),
                          [&, client, layer, tensors](worker::OperationResult result) {
                              const SequenceId id{static_cast<std::uint64_t>(client + 1)};
                              wrong[client] += result.status
                                                   ? check_layer(reference, spec, layer, tensors,
                                                                 {{id, tokens[client]}}, result.tensors.bytes())
                                                   : result.status.error().to_string();
                              if (layer + 1 < spec.layer_count()) return call(client, layer + 1);
                              ++finished;
                          });
    };
    for (int c = 0; c < kClients; ++c) call(c, 0);
    grid.wait_for([&] { return finished == kClients; });

    for (int c = 0; c < kClients; ++c) {
        EXPECT_EQ(wrong[c], "") << c;
        EXPECT_TRUE(grid.commit(steps[c]).status.ok());
    }
    EXPECT_GE(grid.lead().counters().merged_layer_calls, 6u);  // at least the six that waited while the first two ran
    EXPECT_EQ(grid.violation(), "");
}

}  // namespace
}  // namespace kvgrid::tests
