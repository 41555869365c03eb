// A grid answers what attention over the whole cache, computed in fp64, would answer: whatever the split over heads and sequence, the
// shape of the heads, the lengths and the batch. Ranks are threads of this process, under a real lead; each output of each layer call is
// compared. Data are random; the seed is in each failure's message.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/grid/driver.h"
#include "tests/grid/test_device.h"
#include "tests/grid/thread_grid.h"

namespace kvgrid::tests {
namespace {

using worker::AddModel;
using worker::ForkSequence;
using worker::OpenSequence;
using worker::StepKind;

constexpr ModelId kModel{1};
constexpr std::uint64_t kMemory = 64 << 20;

class Grids : public testing::TestWithParam<GridShape> {
  protected:
    Grids() : grid_(GetParam().workers(), kMemory) { SCOPED_TRACE(fmt::format("seed {}", kSeed)); }

    void add(ModelSpec spec) {
        spec_ = std::move(spec);
        ASSERT_TRUE(grid_.submit(AddModel{kModel, spec_, GetParam(), 0}).status.ok());
        reference_ = std::make_unique<ReferenceCache>(spec_);
    }

    void open(std::uint64_t id, Window window = {}) {
        ASSERT_TRUE(grid_.submit(OpenSequence{SequenceId{id}, kModel, window}).status.ok());
        reference_->open(SequenceId{id}, window);
    }

    std::string step(std::vector<worker::StreamTable::Part> parts, StepKind kind = StepKind::attend) {
        return run_step(grid_, *reference_, kModel, spec_, parts, kind, random_);
    }

    // The heads of a model that this grid can hold: `per_part` KV heads for each head part, plus one more so that parts are uneven.
    int uneven_kv_heads() const { return GetParam().head_parts + 1; }

    static constexpr unsigned kSeed = 20260807;
    ThreadGrid grid_;
    ModelSpec spec_;
    std::unique_ptr<ReferenceCache> reference_;
    std::mt19937 random_{kSeed};
};

INSTANTIATE_TEST_SUITE_P(Shapes, Grids,
                         testing::Values(GridShape{1, 1}, GridShape{1, 2}, GridShape{2, 1}, GridShape{2, 2},
                                         GridShape{3, 1}, GridShape{1, 3}, GridShape{1, 5}),
                         [](const auto& shape) {
                             return fmt::format("{}x{}", shape.param.head_parts, shape.param.sequence_parts);
                         });

TEST_P(Grids, AnswerExactlyForEveryGroupOfHeads) {
    for (int group : {1, 3, 4, 7, 8}) {
        const int kv_heads = uneven_kv_heads();
        const ModelId model{static_cast<std::uint64_t>(100 + group)};
        const ModelSpec spec = make_spec(2, kv_heads * group, kv_heads, 32, widest_dtype());
        ASSERT_TRUE(grid_.submit(AddModel{model, spec, GetParam(), 4 << 20}).status.ok());
        ReferenceCache reference(spec);
        const SequenceId id{static_cast<std::uint64_t>(group)};
        ASSERT_TRUE(grid_.submit(OpenSequence{id, model, {}}).status.ok());
        reference.open(id, {});
        for (int tokens : {70, 1, 1, 58, 1}) {  // a chunk over a page border, then decodes up to and over the next
            EXPECT_EQ(run_step(grid_, reference, model, spec, {{id, tokens}}, StepKind::attend, random_), "")
                << "group " << group;
        }
    }
    EXPECT_EQ(grid_.violation(), "");
}

TEST_P(Grids, AnswerExactlyAroundPageBorders) {
    add(make_spec(1, uneven_kv_heads() * 2, uneven_kv_heads(), 64, Dtype::bf16));
    std::uint64_t id = 0;
    for (int length : {1, 63, 64, 65, 127, 128, 129, 320, 321}) {
        open(++id);
        EXPECT_EQ(step({{SequenceId{id}, length}}), "") << length;
        EXPECT_EQ(step({{SequenceId{id}, 1}}), "") << length;
        EXPECT_EQ(step({{SequenceId{id}, 2}}), "") << length;
    }
    EXPECT_EQ(grid_.violation(), "");
}

TEST_P(Grids, TakeRaggedBatchesOfChunksAndDecodes) {
    add(make_spec(3, uneven_kv_heads() * 3, uneven_kv_heads(), 40, Dtype::f16));
    for (std::uint64_t id = 1; id <= 4; ++id) open(id);
    EXPECT_EQ(step({{SequenceId{1}, 150}, {SequenceId{2}, 1}, {SequenceId{3}, 64}}), "");
    EXPECT_EQ(step({{SequenceId{4}, 33}, {SequenceId{1}, 1}, {SequenceId{2}, 1}, {SequenceId{3}, 1}}), "");
    EXPECT_EQ(step({{SequenceId{2}, 90}, {SequenceId{1}, 5}}), "");
    EXPECT_EQ(grid_.violation(), "");
}

TEST_P(Grids, KeepForksApart) {
    add(make_spec(2, uneven_kv_heads(), uneven_kv_heads(), 32, widest_dtype()));
    open(1);
    EXPECT_EQ(step({{SequenceId{1}, 100}}),
              "");  // the second page is partly filled: it is copied when one of the two writes
    ASSERT_TRUE(grid_.submit(ForkSequence{SequenceId{1}, SequenceId{2}}).status.ok());
    reference_->fork(SequenceId{1}, SequenceId{2});
    EXPECT_EQ(step({{SequenceId{1}, 3}}), "");
    EXPECT_EQ(step({{SequenceId{2}, 40}}), "");
    EXPECT_EQ(step({{SequenceId{1}, 1}, {SequenceId{2}, 1}}), "");
    EXPECT_EQ(grid_.violation(), "");
    for (std::uint64_t id : {1, 2}) ASSERT_TRUE(grid_.submit(worker::CloseSequence{SequenceId{id}}).status.ok());
    for (const auto& rank : grid_.submit(worker::ReportOccupancy{}).by_rank)
        EXPECT_EQ(rank[0].pages.free, rank[0].pages.capacity);
}

TEST_P(Grids, LetASlidingWindowPassAndGiveItsPagesBack) {
    ModelSpec spec = make_spec(2, uneven_kv_heads() * 2, uneven_kv_heads(), 32, widest_dtype());
    spec.layers[1].window = 100;
    spec.layers[1].sinks = 4;
    add(validated(spec).value());
    open(1);
    open(2, {50, 1});  // a window of its own, for both layers
    for (int tokens : {130, 70, 1, 90, 64, 1}) {
        EXPECT_EQ(step({{SequenceId{1}, tokens}, {SequenceId{2}, tokens}}), "") << tokens;
    }
    EXPECT_EQ(grid_.violation(), "");
    const auto report = grid_.submit(worker::InspectSequence{SequenceId{2}}).sequence;
    std::uint64_t pages = 0;
    for (std::uint64_t count : report.pages_by_rank) pages += count;
    // Of 356 tokens in 6 pages, each of 2 layers keeps page 0 (the sink), and pages 4 and 5 (tokens from 356 - 50 + 1 = 307 on).
    EXPECT_EQ(pages, 2u * 3 * spec.kv_heads);
}

TEST_P(Grids, ShareLayersAndHideWhatIsNotThereYet) {
    ModelSpec spec = make_spec(5, uneven_kv_heads() * 2, uneven_kv_heads(), 32, widest_dtype());
    for (int layer : {1, 2}) spec.layers[layer].kv_layer = 3;  // read a later layer's KV
    add(validated(spec).value());
    open(1);
    open(2);
    for (int i = 0; i < 70; ++i) EXPECT_EQ(step({{SequenceId{1}, 1}, {SequenceId{2}, 1}}), "") << i;
    auto [id, refused] =
        grid_.begin({.step = {}, .model = kModel, .kind = StepKind::attend, .parts = {{SequenceId{1}, 2}}});
    EXPECT_EQ(refused.status.error(), Errc::unsupported);
    EXPECT_EQ(grid_.violation(), "");
}

TEST_P(Grids, AttendWhatWasWrittenWithoutAttending) {
    ModelSpec spec = make_spec(3, uneven_kv_heads(), uneven_kv_heads(), 32, Dtype::bf16);
    spec.layers[1].kv_layer = 0;
    add(validated(spec).value());
    open(1);
    EXPECT_EQ(step({{SequenceId{1}, 200}}, StepKind::write), "");
    EXPECT_EQ(step({{SequenceId{1}, 2}}), "");
    EXPECT_EQ(step({{SequenceId{1}, 1}}, StepKind::write), "");
    EXPECT_EQ(step({{SequenceId{1}, 1}}), "");
}

TEST_P(Grids, CapLogits) {
    ModelSpec spec = make_spec(1, uneven_kv_heads(), uneven_kv_heads(), 32, widest_dtype());
    spec.logit_soft_cap = 2;
    add(validated(spec).value());
    open(1);
    EXPECT_EQ(step({{SequenceId{1}, 90}}), "");
    EXPECT_EQ(step({{SequenceId{1}, 1}}), "");
}

TEST_P(Grids, ReadBackWhatWasAppended) {
    add(make_spec(2, uneven_kv_heads(), uneven_kv_heads(), 32, Dtype::f16));
    open(1);
    EXPECT_EQ(step({{SequenceId{1}, 300}}), "");
    const std::size_t row = spec_.kv_heads * spec_.head_dim;
    for (auto [first, count] : {std::pair{0, 300}, {0, 1}, {299, 1}, {60, 10}, {64, 64}, {100, 150}, {7, 0}}) {
        const auto read = grid_.submit(worker::ReadKv{SequenceId{1}, 1, first, count});
        ASSERT_TRUE(read.status.ok());
        const auto got = to_floats(read.tensors.bytes(), spec_.dtype);
        const auto& sequence = reference_->at(SequenceId{1});
        std::vector<float> expected;
        for (const auto* rows : {&sequence.k[1], &sequence.v[1]}) {
            expected.insert(expected.end(), rows->begin() + first * row, rows->begin() + (first + count) * row);
        }
        EXPECT_EQ(got, expected) << first << " " << count;
    }
    EXPECT_EQ(grid_.submit(worker::ReadKv{SequenceId{1}, 1, 200, 101}).status.error(), Errc::invalid_argument);
    EXPECT_EQ(grid_.submit(worker::ReadKv{SequenceId{1}, 2, 0, 1}).status.error(), Errc::invalid_argument);
}

TEST_P(Grids, JoinTheSameBytesWhateverTheLength) {
    add(make_spec(1, uneven_kv_heads() * 2, uneven_kv_heads(), 32, widest_dtype()));
    open(1);
    std::vector<std::uint64_t> moved;
    for (int tokens : {64, 1, 700, 1}) {
        const std::uint64_t before = grid_.submit(worker::ReportOccupancy{}).join_bytes;
        EXPECT_EQ(step({{SequenceId{1}, tokens}}), "");
        if (tokens == 1) moved.push_back(grid_.submit(worker::ReportOccupancy{}).join_bytes - before);
    }
    EXPECT_EQ(moved[0], moved[1]);
    EXPECT_EQ(moved[0] > 0, GetParam().workers() > 1);
}

TEST_P(Grids, LeaveTheSequenceAsItWasWhenAStepIsAborted) {
    add(make_spec(2, uneven_kv_heads(), uneven_kv_heads(), 32, widest_dtype()));
    open(1);
    EXPECT_EQ(step({{SequenceId{1}, 100}}), "");
    ASSERT_TRUE(grid_.submit(ForkSequence{SequenceId{1}, SequenceId{2}}).status.ok());
    reference_->fork(SequenceId{1}, SequenceId{2});
    const auto before = grid_.submit(worker::ReportOccupancy{}).by_rank;
    for (int layers : {0, 1, 2}) {
        EXPECT_EQ(run_step(grid_, *reference_, kModel, spec_, {{SequenceId{1}, 150}, {SequenceId{2}, 1}},
                           StepKind::attend, random_,
                           /*commit=*/false, layers),
                  "");
        const auto after = grid_.submit(worker::ReportOccupancy{}).by_rank;
        for (int rank = 0; rank < grid_.rank_count(); ++rank) {
            EXPECT_EQ(after[rank][0].pages.free, before[rank][0].pages.free);
            EXPECT_EQ(after[rank][0].pages.shared, before[rank][0].pages.shared);
            EXPECT_EQ(after[rank][0].stored_tokens, before[rank][0].stored_tokens);
        }
    }
    EXPECT_EQ(step({{SequenceId{1}, 1}, {SequenceId{2}, 1}}), "");
    EXPECT_EQ(grid_.violation(), "");
}

}  // namespace
}  // namespace kvgrid::tests
