// A step of which no call comes for long is aborted, with all that it holds, and its owner is told at the next call. Time is handed in.

#include <gtest/gtest.h>

#include "tests/grid/driver.h"
#include "tests/grid/thread_grid.h"

namespace kvgrid::tests {
namespace {

using namespace std::chrono_literals;

constexpr ModelId kModel{1};
constexpr auto kIdleMax = 10s;

class IdleSteps : public testing::Test {
  protected:
    IdleSteps() {
        EXPECT_TRUE(grid_.submit(worker::AddModel{kModel, spec_, {2, 2}, 8 * spec_.page_bytes()}).status.ok());
        for (std::uint64_t id : {1, 2}) {
            EXPECT_TRUE(grid_.submit(worker::OpenSequence{SequenceId{id}, kModel, {}}).status.ok());
        }
    }

    StepId begin(std::uint64_t sequence, int tokens) {
        const auto [step, begun] = grid_.begin(
            {.step = {}, .model = kModel, .kind = worker::StepKind::attend, .parts = {{SequenceId{sequence}, tokens}}});
        EXPECT_TRUE(begun.status.ok());
        return step;
    }
    worker::OperationResult layer(StepId step, int layer, int tokens) {
        return grid_.layer(step, layer, random_layer(random_, spec_, layer, tokens, worker::StepKind::attend).bytes);
    }
    void pass(std::chrono::milliseconds time) { grid_.lead().abort_idle_steps(now_ += time, kIdleMax); }
    std::uint64_t free_pages() {
        std::uint64_t free = 0;
        for (const auto& rank : grid_.submit(worker::ReportOccupancy{}).by_rank) free += rank[0].pages.free;
        return free;
    }

    const ModelSpec spec_ = make_spec(2, 4, 2, 32, Dtype::f32);
    ThreadGrid grid_{4, 64 << 20};
    std::mt19937 random_{7};
    TimePoint now_{1h};
};

TEST_F(IdleSteps, AreAbortedWithTheirPagesAndTheirOwnerIsTold) {
    const std::uint64_t free = free_pages();
    const StepId step = begin(1, 100);
    ASSERT_TRUE(layer(step, 0, 100).status.ok());
    pass(0s);
    pass(kIdleMax - 1ms);
    EXPECT_EQ(grid_.lead().open_step_count(), 1u);

    pass(1ms);

    EXPECT_EQ(grid_.lead().open_step_count(), 0u);
    EXPECT_EQ(free_pages(), free);
    EXPECT_EQ(grid_.lead().counters().steps_timed_out, 1u);
    for (const Status& told : {layer(step, 1, 100).status, grid_.commit(step).status, grid_.abort(step).status}) {
        ASSERT_EQ(told.error(), Errc::not_found);
        EXPECT_EQ(told.error().message, "step 1 was aborted because no call of it came for 10000 ms: begin it again");
    }
    EXPECT_NE(begin(1, 100), step);  // the sequence is free again
    EXPECT_EQ(grid_.violation(), "");
}

TEST_F(IdleSteps, AnyCallKeepsAStepOpen) {
    const StepId step = begin(1, 1);
    for (int i = 0; i < 5; ++i) {
        pass(kIdleMax - 1ms);
        EXPECT_FALSE(layer(step, 1, 1).status.ok());  // even one that is refused
    }
    pass(0s);
    EXPECT_TRUE(layer(step, 0, 1).status.ok());
    const StepId other = begin(2, 1);
    pass(1ms);
    pass(kIdleMax - 1ms);
    EXPECT_TRUE(layer(step, 1, 1).status.ok());
    pass(1ms);
    EXPECT_TRUE(grid_.commit(step).status.ok());
    EXPECT_EQ(grid_.commit(other).status.error(), Errc::not_found);
}

TEST_F(IdleSteps, ACallThatIsUnderWayIsNoIdleness) {
    const StepId step = begin(1, 1);
    bool done = false;
    grid_.lead().layer(step, 0, comm::Payload::own(random_layer(random_, spec_, 0, 1, worker::StepKind::attend).bytes),
                       [&](worker::OperationResult result) { done = result.status.ok(); });
    for (int i = 0; i < 5; ++i) pass(kIdleMax);  // its answer is not taken before `wait_for`
    grid_.wait_for([&] { return done; });
    EXPECT_TRUE(layer(step, 1, 1).status.ok());
    EXPECT_TRUE(grid_.commit(step).status.ok());
    EXPECT_EQ(grid_.lead().counters().steps_timed_out, 0u);
}

}  // namespace
}  // namespace kvgrid::tests
