// In a step of kind iterate layers are called in any order, and again: what a call attends is what the step has written last, in every
// split, against the fp64 reference, for several sequences at once; committed is the last pass. What may not be called is refused with
// nothing changed. Before a layer's KV was written nothing can read it, so that no output depends on what a page held before.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/grid/driver.h"
#include "tests/grid/test_device.h"
#include "tests/grid/thread_grid.h"

namespace kvgrid::tests {
namespace {

using worker::AddModel;
using worker::BeginStep;
using worker::OpenSequence;
using worker::StepKind;
using Parts = std::vector<worker::StreamTable::Part>;

constexpr ModelId kModel{1};

enum class Call { all, q, kv };

class IterateSteps : public testing::TestWithParam<GridShape> {
  protected:
    // Layers 1 and 2 read the KV of layer 3, layer 2 through a window: "0_3_3s_3_4".
    IterateSteps() : grid_(GetParam().workers(), 64 << 20) {
        spec_ = make_spec(5, 2 * (GetParam().head_parts + 1), GetParam().head_parts + 1, 32, widest_dtype());
        spec_.layers[1].kv_layer = 3;
        spec_.layers[2] = {.kv_layer = 3, .window = 40, .sinks = 2};
        spec_ = validated(spec_).value();
        reference_ = std::make_unique<ReferenceCache>(spec_);
        EXPECT_TRUE(grid_.submit(AddModel{kModel, spec_, GetParam(), 0}).status.ok());
        for (std::uint64_t id : {1, 2, 3}) {
            EXPECT_TRUE(grid_.submit(OpenSequence{SequenceId{id}, kModel, {}}).status.ok());
            reference_->open(SequenceId{id}, {});
        }
    }

    StepId begin(const Parts& parts) {
        auto [step, begun] = grid_.begin({.step = {}, .model = kModel, .kind = StepKind::iterate, .parts = parts});
        EXPECT_TRUE(begun.status.ok()) << begun.status.error().to_string();
        return step;
    }

    LayerTensors tensors_of(int layer, int tokens, Call call) {
        LayerTensors tensors = random_layer(random_, spec_, layer, tokens, StepKind::iterate);
        if (call == Call::kv) tensors.q.clear();
        if (call == Call::q) tensors.k.clear(), tensors.v.clear();
        tensors.pack(spec_.dtype);
        return tensors;
    }

    // Calls the layer with random tensors and compares. What is wrong, or "".
    std::string call(StepId step, const Parts& parts, int layer, Call call = Call::all, bool zeros = false) {
        int tokens = 0;
        for (const auto& part : parts) tokens += part.tokens;
        LayerTensors tensors = tensors_of(layer, tokens, call);
        if (zeros) {
            std::ranges::fill(tensors.k, 0.0f);
            std::ranges::fill(tensors.v, 0.0f);
            tensors.pack(spec_.dtype);
        }
        const auto result = grid_.layer(step, {layer, {.q = call == Call::kv, .kv = call == Call::q}}, tensors.bytes);
        if (!result.status) return result.status.error().to_string();
        return check_layer(*reference_, spec_, layer, tensors, parts, result.tensors.bytes());
    }

    Errc call_error(StepId step, int tokens, int layer, Call call = Call::all) {
        const auto result = grid_.layer(step, {layer, {.q = call == Call::kv, .kv = call == Call::q}},
                                        tensors_of(std::clamp(layer, 0, 4), tokens, call).bytes);
        return result.status.ok() ? Errc{} : result.status.error().code;
    }

    // A prompt in `passes` over layers 1 to 3, each seeing the KV that the pass before has left in layer 3.
    void prompt(const Parts& parts, int passes) {
        const StepId step = begin(parts);
        EXPECT_EQ(call(step, parts, 0), "");
        EXPECT_EQ(call(step, parts, 3, Call::kv, /*zeros=*/true), "");
        for (int pass = 0; pass < passes; ++pass) {
            EXPECT_EQ(call(step, parts, 1), "") << pass;
            EXPECT_EQ(call(step, parts, 2), "") << pass;
            EXPECT_EQ(call(step, parts, 3), "") << pass;
        }
        EXPECT_EQ(call(step, parts, 4), "");
        ASSERT_TRUE(grid_.commit(step).status.ok());
        for (const auto& part : parts) reference_->commit(part.sequence, part.tokens);
    }

    std::string decode() {
        return run_step(grid_, *reference_, kModel, spec_, {{SequenceId{1}, 1}, {SequenceId{2}, 1}, {SequenceId{3}, 1}},
                        StepKind::attend, random_);
    }

    ThreadGrid grid_;
    ModelSpec spec_;
    std::unique_ptr<ReferenceCache> reference_;
    std::mt19937 random_{20261126};  // the seed
};

INSTANTIATE_TEST_SUITE_P(Shapes, IterateSteps,
                         testing::Values(GridShape{1, 1}, GridShape{2, 1}, GridShape{1, 3}, GridShape{2, 2}),
                         [](const auto& shape) {
                             return fmt::format("{}x{}", shape.param.head_parts, shape.param.sequence_parts);
                         });

TEST_P(IterateSteps, AnswerWhatThePassBeforeHasLeft) {
    prompt({{SequenceId{1}, 150}, {SequenceId{2}, 1}, {SequenceId{3}, 33}}, 4);
    EXPECT_EQ(decode(), "");
    prompt({{SequenceId{2}, 90}, {SequenceId{1}, 5}}, 2);  // behind committed tokens
    EXPECT_EQ(decode(), "");
    EXPECT_EQ(grid_.violation(), "");
}

TEST_P(IterateSteps, AreCalledInAnyOrderWithAnyOfTheirTensors) {
    const Parts parts{{SequenceId{1}, 70}, {SequenceId{3}, 2}};
    const StepId step = begin(parts);
    for (int layer : {4, 3, 0}) EXPECT_EQ(call(step, parts, layer, Call::kv), "");
    for (int i = 0; i < 40; ++i) {
        const int layer = std::uniform_int_distribution<int>(0, 4)(random_);
        const auto with = spec_.owns_kv(layer) ? Call{std::uniform_int_distribution<int>(0, 2)(random_)} : Call::q;
        EXPECT_EQ(call(step, parts, layer, with), "") << i;
    }
    ASSERT_TRUE(grid_.commit(step).status.ok());
    for (const auto& part : parts) reference_->commit(part.sequence, part.tokens);
    EXPECT_EQ(decode(), "");
}

TEST_P(IterateSteps, LeaveTheSequenceAsItWasWhenTheyAreAborted) {
    prompt({{SequenceId{1}, 30}, {SequenceId{2}, 30}}, 1);
    ASSERT_TRUE(grid_.submit(worker::ForkSequence{SequenceId{1}, SequenceId{9}}).status.ok());
    reference_->fork(SequenceId{1}, SequenceId{9});
    const Parts parts{{SequenceId{1}, 50}};
    const StepId step = begin(parts);
    for (int pass = 0; pass < 2; ++pass) {
        for (int layer : {4, 3, 0}) EXPECT_EQ(call(step, parts, layer), "");
    }
    ASSERT_TRUE(grid_.abort(step).status.ok());
    EXPECT_EQ(decode(), "");
    EXPECT_EQ(run_step(grid_, *reference_, kModel, spec_, {{SequenceId{9}, 1}}, StepKind::attend, random_), "");
    EXPECT_EQ(grid_.violation(), "");
}

TEST_P(IterateSteps, AreRefusedWhatTheyHaveNotWritten) {
    const StepId step = begin({{SequenceId{1}, 3}});
    EXPECT_EQ(call_error(step, 3, 1), Errc::wrong_state);
    EXPECT_EQ(call_error(step, 3, 0, Call::q), Errc::wrong_state);
    EXPECT_EQ(call_error(step, 3, 5), Errc::invalid_argument);
    EXPECT_EQ(call_error(step, 3, -1), Errc::invalid_argument);
    EXPECT_EQ(call_error(step, 3, 1, Call::kv), Errc::invalid_argument);  // it owns none
    EXPECT_EQ(call_error(step, 2, 0), Errc::invalid_argument);            // tokens of another step
    const auto refused = grid_.layer(step, {1, {.kv = true}}, tensors_of(1, 3, Call::q).bytes);
    EXPECT_NE(refused.status.error().message.find("reads the KV of layer 3, which the step has not written"),
              std::string::npos)
        << refused.status.error().message;
    for (int layer : {0, 3}) EXPECT_EQ(call_error(step, 3, layer), Errc{});
    const auto early = grid_.commit(step);
    EXPECT_EQ(early.status.error(), Errc::wrong_state);
    EXPECT_NE(early.status.error().message.find("layer 4 owns KV"), std::string::npos);
    EXPECT_EQ(call_error(step, 3, 4, Call::kv), Errc{});
    EXPECT_TRUE(grid_.commit(step).status.ok());
}

TEST_P(IterateSteps, AloneMayLeaveTensorsOut) {
    auto [step, begun] =
        grid_.begin({.step = {}, .model = kModel, .kind = StepKind::attend, .parts = {{SequenceId{1}, 1}}});
    ASSERT_TRUE(begun.status.ok());
    EXPECT_EQ(call_error(step, 1, 0, Call::kv), Errc::invalid_argument);
    EXPECT_EQ(call_error(step, 1, 0, Call::q), Errc::invalid_argument);
    EXPECT_EQ(call_error(step, 1, 0), Errc{});
    EXPECT_TRUE(grid_.abort(step).status.ok());
}

}  // namespace
}  // namespace kvgrid::tests
