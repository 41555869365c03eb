// A step says which layer call it takes next, and when it can be committed: in order, once, for kinds attend and write; for kind iterate
// whatever reads nothing that the step has not written.

#include "worker/step.h"

#include <gtest/gtest.h>

namespace kvgrid::worker {
namespace {

constexpr StepId kStep{4};

// "0_3_3_3": layers 1 and 2 read a later layer's KV.
ModelSpec cyclic_spec() {
    ModelSpec spec{.name = "m",
                   .layers = {{0}, {3}, {3}, {3}},
                   .query_heads = 4,
                   .kv_heads = 2,
                   .head_dim = 32,
                   .dtype = Dtype::bf16,
                   .scale = 1};
    return validated(spec).value();
}

TEST(StepProgress, OfKindAttendTakesEachLayerWithAllOfItsTensors) {
    const ModelSpec spec = cyclic_spec();
    StepProgress step(spec, StepKind::attend);
    for (int layer = 0; layer < 4; ++layer) {
        EXPECT_EQ(step.check_complete(spec, kStep).error(), Errc::wrong_state);
        EXPECT_EQ(step.check(spec, kStep, layer + 1, {}).error(), Errc::wrong_state);
        EXPECT_EQ(step.check(spec, kStep, layer, {.q = true}).error(), Errc::invalid_argument);
        const auto brings = step.check(spec, kStep, layer, {});
        ASSERT_TRUE(brings.ok());
        EXPECT_EQ(*brings, (Brings{.q = true, .kv = layer == 0 || layer == 3}));
        step.pass(spec, layer, *brings);
    }
    EXPECT_TRUE(step.check_complete(spec, kStep));
    EXPECT_EQ(step.check(spec, kStep, 4, {}).error(), Errc::wrong_state);
}

TEST(StepProgress, OfKindWritePassesOverLayersWithoutKv) {
    const ModelSpec spec = cyclic_spec();
    StepProgress step(spec, StepKind::write);
    EXPECT_EQ(*step.check(spec, kStep, 0, {}), (Brings{.q = false, .kv = true}));
    step.pass(spec, 0, {.kv = true});
    EXPECT_EQ(step.next_layer(), 3);
    step.pass(spec, 3, {.kv = true});
    EXPECT_TRUE(step.check_complete(spec, kStep));
}

TEST(StepProgress, OfKindIterateReadsWhatIsWritten) {
    const ModelSpec spec = cyclic_spec();
    StepProgress step(spec, StepKind::iterate);
    EXPECT_EQ(step.check(spec, kStep, 1, {}).error(), Errc::wrong_state);
    EXPECT_EQ(step.check(spec, kStep, 3, {.kv = true}).error(), Errc::wrong_state);
    EXPECT_TRUE(step.check(spec, kStep, 3, {}).ok());  // it brings what it reads
    step.pass(spec, 3, *step.check(spec, kStep, 3, {.q = true}));
    for (int layer : {2, 1, 2, 3}) {
        EXPECT_EQ(*step.check(spec, kStep, layer, {.kv = true}), (Brings{.q = true, .kv = false}));
    }
    EXPECT_EQ(step.check_complete(spec, kStep).error(), Errc::wrong_state);
    step.pass(spec, 0, *step.check(spec, kStep, 0, {.q = true}));
    EXPECT_TRUE(step.check_complete(spec, kStep));
}

TEST(StepProgress, OfKindIterateNamesWhatIsWrong) {
    const ModelSpec spec = cyclic_spec();
    const StepProgress step(spec, StepKind::iterate);
    EXPECT_EQ(step.check(spec, kStep, 4, {}).error().message, "layer 4 of step 4: model 'm' has layers 0 to 3");
    EXPECT_EQ(step.check(spec, kStep, 1, {.q = true}).error().message,
              "layer 1 of step 4 is called with nothing: give it q; it owns no KV");
    EXPECT_EQ(step.check(spec, kStep, 3, {true, true}).error().message,
              "layer 3 of step 4 is called with nothing: give it q, or k and v, or all");
    EXPECT_EQ(step.check_complete(spec, kStep).error().message,
              "step 4 cannot be committed: layer 0 owns KV, and has none for the new tokens yet; call it with k and v, "
              "or abort");
}

TEST(StepKinds, AModelOfFp8PagesHasNoStepsThatIterate) {
    ModelSpec spec = cyclic_spec();
    for (StepKind kind : {StepKind::attend, StepKind::write, StepKind::iterate}) EXPECT_TRUE(check_kind(spec, kind));
    spec.kv_dtype = KvDtype::fp8_e4m3;
    for (StepKind kind : {StepKind::attend, StepKind::write}) EXPECT_TRUE(check_kind(spec, kind));
    const Status refused = check_kind(spec, StepKind::iterate);
    EXPECT_EQ(refused.error(), Errc::unsupported);
    EXPECT_NE(refused.error().message.find("fp8_e4m3"), std::string::npos) << refused.error().message;
}

}  // namespace
}  // namespace kvgrid::worker
