// What a grid refuses, it refuses with a reason and with nothing changed: the page counts are the same on every rank before and after.

#include <gtest/gtest.h>

#include "tests/grid/driver.h"
#include "tests/grid/thread_grid.h"

namespace kvgrid::tests {
namespace {

using worker::AddModel;
using worker::BeginStep;
using worker::OpenSequence;
using worker::StepKind;

constexpr ModelId kModel{1};

class Refusals : public testing::Test {
  protected:
    Refusals() : spec_(make_spec(2, 4, 2, 32, Dtype::f32)), reference_(spec_) {
        // 8 pages on each of 4 ranks (2 x 2): two layers of one head need 2 pages for 64 tokens, so 4 pages of tokens on each part.
        EXPECT_TRUE(grid_.submit(AddModel{kModel, spec_, {2, 2}, 8 * spec_.page_bytes()}).status.ok());
        for (std::uint64_t id : {1, 2}) {
            EXPECT_TRUE(grid_.submit(OpenSequence{SequenceId{id}, kModel, {}}).status.ok());
            reference_.open(SequenceId{id}, {});
        }
    }

    BeginStep begin(std::vector<worker::StreamTable::Part> parts) {
        return {.step = {}, .model = kModel, .kind = StepKind::attend, .parts = std::move(parts)};
    }
    Errc begin_error(std::vector<worker::StreamTable::Part> parts) {
        const auto [step, result] = grid_.begin(begin(std::move(parts)));
        return result.status.ok() ? Errc{} : result.status.error().code;
    }
    std::vector<std::byte> tensors(int layer, int tokens) {
        return random_layer(random_, spec_, layer, tokens, StepKind::attend).bytes;
    }
    std::uint64_t free_pages() {
        std::uint64_t free = 0;
        for (const auto& rank : grid_.submit(worker::ReportOccupancy{}).by_rank) free += rank[0].pages.free;
        return free;
    }

    ModelSpec spec_;
    ThreadGrid grid_{4, 64 << 20};
    ReferenceCache reference_;
    std::mt19937 random_{7};
};

TEST_F(Refusals, AStepThatCannotFitTakesNothingAndSaysWhatWouldFit) {
    const std::uint64_t free = free_pages();
    const auto [step, result] = grid_.begin(begin({{SequenceId{1}, 8 * 64 + 1}}));
    ASSERT_EQ(result.status.error(), Errc::no_room);
    EXPECT_NE(result.status.error().message.find("at most 512 new tokens"), std::string::npos)
        << result.status.error().message;
    EXPECT_EQ(free_pages(), free);
    EXPECT_EQ(run_step(grid_, reference_, kModel, spec_, {{SequenceId{1}, 512}}, StepKind::attend, random_), "");
    EXPECT_EQ(free_pages(), 0u);
    EXPECT_EQ(begin_error({{SequenceId{2}, 1}}), Errc::no_room);
    EXPECT_EQ(grid_.violation(), "");
}

TEST_F(Refusals, BadStepsAreNamed) {
    EXPECT_EQ(begin_error({}), Errc::invalid_argument);
    EXPECT_EQ(begin_error({{SequenceId{1}, 0}}), Errc::invalid_argument);
    EXPECT_EQ(begin_error({{SequenceId{1}, -3}}), Errc::invalid_argument);
    EXPECT_EQ(begin_error({{SequenceId{1}, 1}, {SequenceId{1}, 1}}), Errc::invalid_argument);
    EXPECT_EQ(begin_error({{SequenceId{3}, 1}}), Errc::not_found);
    EXPECT_EQ(begin_error({{SequenceId{1}, 1 << 30}}), Errc::invalid_argument);
    EXPECT_EQ(grid_.begin({.step = {}, .model = ModelId{9}, .kind = StepKind::attend, .parts = {{SequenceId{1}, 1}}})
                  .second.status.error(),
              Errc::not_found);
    EXPECT_EQ(free_pages(), 32u);
}

TEST_F(Refusals, ASecondStepOnASequenceHasToWait) {
    const auto [step, begun] = grid_.begin(begin({{SequenceId{1}, 5}}));
    ASSERT_TRUE(begun.status.ok());
    EXPECT_EQ(begin_error({{SequenceId{2}, 1}, {SequenceId{1}, 1}}), Errc::busy);
    EXPECT_EQ(grid_.submit(worker::ForkSequence{SequenceId{1}, SequenceId{5}}).status.error(), Errc::busy);
    EXPECT_EQ(grid_.submit(worker::TruncateSequence{SequenceId{1}, 0}).status.error(), Errc::busy);
    EXPECT_EQ(grid_.submit(worker::CloseSequence{SequenceId{1}}).status.error(), Errc::busy);
    EXPECT_EQ(begin_error({{SequenceId{2}, 1}}), Errc{});  // another sequence need not
    ASSERT_TRUE(grid_.abort(step).status.ok());
    EXPECT_TRUE(grid_.submit(worker::CloseSequence{SequenceId{1}}).status.ok());
}

TEST_F(Refusals, LayersComeOnceAndInOrder) {
    const auto [step, begun] = grid_.begin(begin({{SequenceId{1}, 3}}));
    ASSERT_TRUE(begun.status.ok());
    EXPECT_EQ(grid_.layer(step, 1, tensors(1, 3)).status.error(), Errc::wrong_state);
    EXPECT_EQ(grid_.layer(step, -1, tensors(0, 3)).status.error(), Errc::wrong_state);
    EXPECT_EQ(grid_.commit(step).status.error(), Errc::wrong_state);
    EXPECT_EQ(grid_.layer(step, 0, tensors(0, 2)).status.error(), Errc::invalid_argument);
    EXPECT_TRUE(grid_.layer(step, 0, tensors(0, 3)).status.ok());
    EXPECT_EQ(grid_.layer(step, 0, tensors(0, 3)).status.error(), Errc::wrong_state);
    EXPECT_TRUE(grid_.layer(step, 1, tensors(1, 3)).status.ok());
    EXPECT_EQ(grid_.layer(step, 2, tensors(1, 3)).status.error(), Errc::wrong_state);
    EXPECT_TRUE(grid_.commit(step).status.ok());
    EXPECT_EQ(grid_.commit(step).status.error(), Errc::not_found);
    EXPECT_EQ(grid_.abort(step).status.error(), Errc::not_found);
    EXPECT_EQ(grid_.layer(step, 0, tensors(0, 3)).status.error(), Errc::not_found);
}

TEST_F(Refusals, SequencesAndModelsAreKnownOrRefused) {
    EXPECT_EQ(grid_.submit(OpenSequence{SequenceId{1}, kModel, {}}).status.error(), Errc::already_exists);
    EXPECT_EQ(grid_.submit(OpenSequence{SequenceId{3}, ModelId{9}, {}}).status.error(), Errc::not_found);
    EXPECT_EQ(grid_.submit(OpenSequence{SequenceId{3}, kModel, {-1, 0}}).status.error(), Errc::invalid_argument);
    EXPECT_EQ(grid_.submit(OpenSequence{SequenceId{3}, kModel, {0, 4}}).status.error(), Errc::invalid_argument);
    EXPECT_EQ(grid_.submit(worker::ForkSequence{SequenceId{4}, SequenceId{3}}).status.error(), Errc::not_found);
    EXPECT_EQ(grid_.submit(worker::ForkSequence{SequenceId{1}, SequenceId{2}}).status.error(), Errc::already_exists);
    EXPECT_EQ(grid_.submit(worker::CloseSequence{SequenceId{4}}).status.error(), Errc::not_found);
    EXPECT_EQ(grid_.submit(worker::TruncateSequence{SequenceId{1}, 1}).status.error(), Errc::invalid_argument);
    EXPECT_EQ(grid_.submit(worker::TruncateSequence{SequenceId{1}, -1}).status.error(), Errc::invalid_argument);
    EXPECT_EQ(grid_.submit(worker::InspectSequence{SequenceId{4}}).status.error(), Errc::not_found);
    EXPECT_EQ(grid_.submit(AddModel{kModel, spec_, {2, 2}, 0}).status.error(), Errc::already_exists);
    EXPECT_EQ(grid_.submit(AddModel{ModelId{2}, spec_, {2, 2}, 65 << 20}).status.error(), Errc::no_room);
    EXPECT_EQ(grid_.submit(AddModel{ModelId{2}, spec_, {2, 2}, spec_.page_bytes()}).status.error(), Errc::no_room);
}

TEST_F(Refusals, WhatLeftTheWindowCannotBeSeenAgain) {
    ASSERT_TRUE(grid_.submit(worker::SetWindow{SequenceId{1}, {64, 0}}).status.ok());
    reference_.at(SequenceId{1}).window = {64, 0};
    for (int i = 0; i < 4; ++i)
        EXPECT_EQ(run_step(grid_, reference_, kModel, spec_, {{SequenceId{1}, 100}}, StepKind::attend, random_), "");
    EXPECT_EQ(grid_.submit(worker::SetWindow{SequenceId{1}, {0, 0}}).status.error(), Errc::wrong_state);
    EXPECT_EQ(grid_.submit(worker::SetWindow{SequenceId{1}, {400, 0}}).status.error(), Errc::wrong_state);
    EXPECT_EQ(grid_.submit(worker::SetWindow{SequenceId{1}, {64, 1}}).status.error(), Errc::wrong_state);
    EXPECT_EQ(grid_.submit(worker::TruncateSequence{SequenceId{1}, 100}).status.error(), Errc::wrong_state);
    EXPECT_EQ(grid_.submit(worker::ReadKv{SequenceId{1}, 0, 0, 10}).status.error(), Errc::wrong_state);
    EXPECT_TRUE(grid_.submit(worker::SetWindow{SequenceId{1}, {10, 0}}).status.ok());
    EXPECT_TRUE(grid_.submit(worker::TruncateSequence{SequenceId{1}, 394}).status.ok());
    EXPECT_EQ(grid_.submit(worker::TruncateSequence{SequenceId{1}, 200}).status.error(), Errc::wrong_state);
    EXPECT_TRUE(
        grid_.submit(worker::TruncateSequence{SequenceId{1}, 0}).status.ok());  // nothing is needed of what is gone
}

TEST_F(Refusals, OnlyTokensThatAreThereAndWhatOthersWouldComputeAreABeginning) {
    const auto fork = [&](std::uint64_t target, std::int64_t tokens) {
        const auto result = grid_.submit(worker::ForkSequence{SequenceId{1}, SequenceId{target}, tokens});
        return result.status.ok() ? Errc{} : result.status.error().code;
    };
    EXPECT_EQ(run_step(grid_, reference_, kModel, spec_, {{SequenceId{1}, 100}}, StepKind::attend, random_), "");
    EXPECT_EQ(fork(5, 101), Errc::invalid_argument);
    EXPECT_EQ(fork(5, -1), Errc::invalid_argument);
    EXPECT_EQ(fork(5, 64), Errc{});
    EXPECT_EQ(grid_.submit(worker::InspectSequence{SequenceId{5}}).sequence.length, 64);
    ASSERT_TRUE(grid_.submit(worker::SetWindow{SequenceId{1}, {200, 0}}).status.ok());
    EXPECT_EQ(fork(6, 64), Errc::wrong_state) << "nothing has left its window, but it has one";
    EXPECT_EQ(grid_.submit(worker::InspectSequence{SequenceId{6}}).status.error(), Errc::not_found);
    EXPECT_EQ(grid_.violation(), "");
}

TEST_F(Refusals, AVanishedOwnersStepsAreAborted) {
    const std::uint64_t free = free_pages();
    const auto [mine, begun] = grid_.begin(begin({{SequenceId{1}, 100}}), /*owner=*/11);
    ASSERT_TRUE(begun.status.ok());
    const auto [other, begun_too] = grid_.begin(begin({{SequenceId{2}, 10}}), /*owner=*/12);
    ASSERT_TRUE(begun_too.status.ok());
    grid_.lead().owner_lost(11);
    EXPECT_EQ(grid_.layer(mine, 0, tensors(0, 100)).status.error(), Errc::not_found);
    EXPECT_TRUE(grid_.layer(other, 0, tensors(0, 10)).status.ok());
    EXPECT_TRUE(grid_.abort(other).status.ok());
    EXPECT_EQ(free_pages(), free);
}

TEST_F(Refusals, AnOwnerLostWhileItsStepBeginsLeavesNothing) {
    const std::uint64_t free = free_pages();
    bool begun = false;
    grid_.lead().begin(begin({{SequenceId{1}, 100}}), /*owner=*/11,
                       [&](StepId, worker::OperationResult) { begun = true; });
    grid_.lead().owner_lost(11);
    grid_.wait_for([&] { return begun; });
    EXPECT_EQ(free_pages(), free);
    EXPECT_EQ(grid_.lead().open_step_count(), 0u);
}

}  // namespace
}  // namespace kvgrid::tests
