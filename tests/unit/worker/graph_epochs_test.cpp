// A program's graphs are good for as long as their number stays the same. What a launch depends on changes the number, what it does not
// depend on does not, and a number that was given up never comes back.

#include "worker/gpu/graph_epochs.h"

#include <gtest/gtest.h>

namespace kvgrid::worker {
namespace {

GraphShape decodes_of(std::size_t sequences) {
    return {.batch = 0, .rows = static_cast<int>(sequences), .attends = true, .plans = {{.items = sequences}}};
}

TEST(GraphEpochs, TheSameShapeKeepsItsNumberAndAnotherHasAnother) {
    std::uint64_t last = 0;
    GraphEpochs epochs(last);
    const std::uint64_t two = epochs.of(decodes_of(2), 0);
    EXPECT_NE(two, 0u);
    EXPECT_NE(epochs.of(decodes_of(3), 0), two);
    EXPECT_EQ(epochs.of(decodes_of(2), 0), two);

    GraphShape recut = decodes_of(2);
    recut.plans[0].cut = {kernels::UnitCut::Kind::clusters, 4};
    EXPECT_NE(epochs.of(recut, 0), two);
    GraphShape written = decodes_of(2);
    written.attends = false;
    EXPECT_NE(epochs.of(written, 0), two);
}

TEST(GraphEpochs, NoNumberOutlivesAMove) {
    std::uint64_t last = 0;
    GraphEpochs epochs(last);
    const std::uint64_t before = epochs.of(decodes_of(2), 0);
    const std::uint64_t after = epochs.of(decodes_of(2), 1);
    EXPECT_NE(after, before);
    EXPECT_EQ(epochs.of(decodes_of(2), 1), after);
    EXPECT_GT(epochs.of(decodes_of(2), 0), after);
}

TEST(GraphEpochs, ModelsOfOneDeviceShareNoNumber) {
    std::uint64_t last = 0;
    GraphEpochs epochs(last), others(last);
    EXPECT_NE(epochs.of(decodes_of(2), 0), others.of(decodes_of(2), 0));
}

TEST(GraphEpochs, ManyShapesAreForgottenAndNotConfused) {
    std::uint64_t last = 0;
    GraphEpochs epochs(last);
    const std::uint64_t first = epochs.of(decodes_of(1), 0);
    for (std::size_t i = 2; i <= 2 * GraphEpochs::kShapesMax; ++i) {
        ASSERT_EQ(epochs.of(decodes_of(i), 0), i);
    }
    EXPECT_GT(epochs.of(decodes_of(1), 0), first);
}

}  // namespace
}  // namespace kvgrid::worker
