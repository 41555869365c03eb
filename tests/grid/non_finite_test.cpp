// NaN and infinities. In k and v they are refused, with nothing changed and the layer still to be called; a model may allow them, and
// then they spoil the tokens that see them and no other. In q they spoil their own rows alone.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/grid/driver.h"
#include "tests/grid/thread_grid.h"

namespace kvgrid::tests {
namespace {

using worker::StepKind;

constexpr ModelId kModel{1};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class NonFinite : public testing::TestWithParam<Dtype> {
  protected:
    explicit NonFinite(bool allow = false) : spec_(make_spec(2, 4, 2, 32, GetParam())), reference_(spec_) {
        spec_.allows_non_finite = allow;
        EXPECT_TRUE(grid_.submit(worker::AddModel{kModel, spec_, {2, 2}, 32 * spec_.page_bytes()}).status.ok());
        for (std::uint64_t id : {1, 2}) open(id);
    }

    void open(std::uint64_t id) {
        EXPECT_TRUE(grid_.submit(worker::OpenSequence{SequenceId{id}, kModel, {}}).status.ok());
        reference_.open(SequenceId{id}, {});
    }
    StepId begin(std::vector<worker::StreamTable::Part> parts) {
        const auto [step, begun] =
            grid_.begin({.step = {}, .model = kModel, .kind = StepKind::attend, .parts = std::move(parts)});
        EXPECT_TRUE(begun.status.ok());
        return step;
    }
    LayerTensors tensors(int layer, int tokens) {
        return random_layer(random_, spec_, layer, tokens, StepKind::attend);
    }
    std::size_t q_elements(int tokens) const { return std::size_t{1} * tokens * spec_.query_heads * spec_.head_dim; }
    std::size_t kv_elements(int tokens) const { return std::size_t{1} * tokens * spec_.kv_heads * spec_.head_dim; }
    std::string run(std::vector<worker::StreamTable::Part> parts) {
        return run_step(grid_, reference_, kModel, spec_, parts, StepKind::attend, random_);
    }
    std::uint64_t free_pages() {
        std::uint64_t free = 0;
        for (const auto& rank : grid_.submit(worker::ReportOccupancy{}).by_rank) free += rank[0].pages.free;
        return free;
    }

    ModelSpec spec_;
    ReferenceCache reference_;
    ThreadGrid grid_{4, 64 << 20};
    std::mt19937 random_{7};
};

class NonFiniteAllowed : public NonFinite {
  protected:
    NonFiniteAllowed() : NonFinite(true) {}
};

const auto kDtypes = testing::Values(Dtype::f32, Dtype::f16, Dtype::bf16);
INSTANTIATE_TEST_SUITE_P(Dtypes, NonFinite, kDtypes);
INSTANTIATE_TEST_SUITE_P(Dtypes, NonFiniteAllowed, kDtypes);

TEST_P(NonFinite, IsRefusedCountedAndMendedByTheSameCall) {
    EXPECT_EQ(run({{SequenceId{1}, 70}}), "");
    const StepId step = begin({{SequenceId{1}, 3}});
    const std::uint64_t free = free_pages();
    std::uint64_t refused = 0;
    for (int layer = 0; layer < 2; ++layer) {
        const LayerTensors good = tensors(layer, 3);
        const std::size_t k = q_elements(3), v = k + kv_elements(3);
        for (const std::size_t at : {k, v - 1, v, v + kv_elements(3) - 1}) {
            for (const float value : {kNan, kInfinity, -kInfinity}) {
                std::vector<std::byte> bad = good.bytes;
                store_element(bad.data(), at, spec_.dtype, value);
                const auto result = grid_.layer(step, layer, bad);
                ASSERT_EQ(result.status.error(), Errc::invalid_argument);
                EXPECT_EQ(grid_.lead().counters().non_finite_refusals, ++refused);
            }
        }
        EXPECT_EQ(free_pages(), free);
        const auto result = grid_.layer(step, layer, good.bytes);
        ASSERT_TRUE(result.status.ok());
        EXPECT_EQ(check_layer(reference_, spec_, layer, good, {{SequenceId{1}, 3}}, result.tensors.bytes()), "");
    }
    EXPECT_TRUE(grid_.commit(step).status.ok());
    EXPECT_EQ(grid_.violation(), "");
}

TEST_P(NonFinite, InQSpoilsItsOwnRowsAlone) {
    EXPECT_EQ(run({{SequenceId{1}, 70}, {SequenceId{2}, 130}}), "");
    constexpr int kTokens = 6;  // 2 of sequence 1, then 4 of sequence 2
    constexpr int kBadToken = 3, kBadHead = 1;
    const StepId step = begin({{SequenceId{1}, 2}, {SequenceId{2}, 4}});
    LayerTensors sent = tensors(0, kTokens);
    const std::size_t bad_row = std::size_t{kBadToken} * spec_.query_heads + kBadHead;
    store_element(sent.bytes.data(), bad_row * spec_.head_dim + 5, spec_.dtype, kNan);

    const auto result = grid_.layer(step, 0, sent.bytes);

    ASSERT_TRUE(result.status.ok());
    std::vector<std::byte> output(result.tensors.bytes().begin(), result.tensors.bytes().end());
    const auto row = std::span(output).subspan(bad_row * spec_.row_bytes(), spec_.row_bytes());
    for (float value : to_floats(row, spec_.dtype)) EXPECT_TRUE(std::isnan(value));
    // That row's right answer is put in its place: all others must be right.
    sent.q[bad_row * spec_.head_dim + 5] = 0;
    const std::vector<worker::StreamTable::Part> parts{{SequenceId{1}, 2}, {SequenceId{2}, 4}};
    reference_.append(SequenceId{2}, 0, std::span(sent.k).subspan(kv_elements(2)),
                      std::span(sent.v).subspan(kv_elements(2)));
    const auto right = reference_.attend(SequenceId{2}, 0, std::span(sent.q).subspan(q_elements(2)), 4);
    for (int i = 0; i < spec_.head_dim; ++i) {
        const std::size_t in_sequence = bad_row * spec_.head_dim - q_elements(2) + i;
        store_element(row.data(), i, spec_.dtype, static_cast<float>(right[in_sequence]));
    }
    EXPECT_EQ(check_layer(reference_, spec_, 0, sent, parts, output), "");
    EXPECT_TRUE(grid_.abort(step).status.ok());
}

TEST_P(NonFiniteAllowed, SpoilsItsOwnSequenceAndNoOther) {
    const StepId step = begin({{SequenceId{1}, 100}});
    for (int layer = 0; layer < 2; ++layer) {
        std::vector<std::byte> bytes = tensors(layer, 100).bytes;
        store_element(bytes.data(), q_elements(100) + kv_elements(99), spec_.dtype, kNan);  // k, KV head 0
        ASSERT_TRUE(grid_.layer(step, layer, bytes).status.ok());
    }
    ASSERT_TRUE(grid_.commit(step).status.ok());
    EXPECT_EQ(run({{SequenceId{2}, 70}}), "");
    const StepId both = begin({{SequenceId{1}, 1}, {SequenceId{2}, 1}});
    LayerTensors sent = tensors(0, 2);
    const auto result = grid_.layer(both, 0, sent.bytes);
    ASSERT_TRUE(result.status.ok());
    const auto [first, second] = std::pair{result.tensors.bytes().first(result.tensors.size() / 2),
                                           result.tensors.bytes().last(result.tensors.size() / 2)};
    EXPECT_TRUE(std::isnan(load_element(first.data(), 0, spec_.dtype)));  // query head 0 reads KV head 0
    for (auto* rows : {&sent.q, &sent.k, &sent.v}) rows->erase(rows->begin(), rows->begin() + rows->size() / 2);
    EXPECT_EQ(check_layer(reference_, spec_, 0, sent, {{SequenceId{2}, 1}}, second), "");
    EXPECT_TRUE(grid_.abort(both).status.ok());
    EXPECT_EQ(grid_.lead().counters().non_finite_refusals, 0u);
}

// Pages come back as they were left, and a shorter sequence leaves slots of them unwritten: what lies there must weigh nothing.
TEST_P(NonFiniteAllowed, WhatAClosedSequenceLeftInItsPagesSpoilsNothing) {
    const StepId step = begin({{SequenceId{1}, 256}});
    for (int layer = 0; layer < 2; ++layer) {
        std::vector<std::byte> bytes = tensors(layer, 256).bytes;
        for (std::size_t at = q_elements(256); at < q_elements(256) + 2 * kv_elements(256); ++at) {
            store_element(bytes.data(), at, spec_.dtype, at % 2 == 0 ? kNan : kInfinity);
        }
        ASSERT_TRUE(grid_.layer(step, layer, bytes).status.ok());
    }
    ASSERT_TRUE(grid_.commit(step).status.ok());
    ASSERT_TRUE(grid_.submit(worker::CloseSequence{SequenceId{1}}).status.ok());

    for (const int tokens : {1, 30, 2, 64, 7}) EXPECT_EQ(run({{SequenceId{2}, tokens}}), "");

    open(3);
    EXPECT_EQ(run({{SequenceId{2}, 1}, {SequenceId{3}, 3}}), "");
}

}  // namespace
}  // namespace kvgrid::tests
