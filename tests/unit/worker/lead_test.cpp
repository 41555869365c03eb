// The lead gives operations one order, cuts tensors to each rank's heads, bounds its queue, and ends everything when the grid breaks.
// Nothing runs here: the links only remember what was sent, and the test says when an operation is done.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/unit/worker/host_memory.h"
#include "worker/head_slices.h"
#include "worker/lead.h"

namespace kvgrid::worker {
namespace {

struct RememberingLinks final : GridLinks {
    explicit RememberingLinks(int ranks) : sent(ranks) {}
    int rank_count() const override { return static_cast<int>(sent.size()); }
    Status send(int rank, const Operation& operation) override {
        if (rank == broken_rank) return {Errc::unavailable, "no connection"};
        sent[rank].push_back(operation);
        return {};
    }
    std::vector<std::vector<Operation>> sent;
    int broken_rank = -1;
};

ModelSpec spec_of(int query_heads, int kv_heads) {
    ModelSpec spec{.name = "m",
                   .layers = {{0}, {1}},
                   .query_heads = query_heads,
                   .kv_heads = kv_heads,
                   .head_dim = 32,
                   .dtype = Dtype::f32,
                   .scale = 1};
    return validated(spec).value();
}

constexpr ModelId kModel{1};
const Lead::Done kIgnore = [](OperationResult) {};

struct LeadTest : testing::Test {
    LeadTest() { add_model(); }

    void add_model() {
        lead.submit(AddModel{kModel, spec, {2, 2}, 0}, kIgnore);
        lead.completed(++number, {});
    }
    StepId begin(std::uint64_t sequence, int tokens, Lead::Owner owner = 1) {
        StepId id;
        lead.begin({.step = {}, .model = kModel, .kind = StepKind::attend, .parts = {{SequenceId{sequence}, tokens}}},
                   owner, [&](StepId step, OperationResult) { id = step; });
        lead.completed(++number, {});
        return id;
    }
    comm::Payload tensors(int tokens, std::byte fill = {}) const {
        return comm::Payload::own(std::vector<std::byte>(call_tensor_bytes(spec, true, true, tokens), fill));
    }

    const ModelSpec spec = spec_of(6, 3);
    RememberingLinks links{4};
    Lead lead{links};
    std::uint64_t number = 0;  // of the operation completed last
};

TEST_F(LeadTest, NumbersAreConsecutiveAndTheSameOnEveryRank) {
    for (int i = 0; i < 5; ++i) {
        lead.submit(CloseSequence{SequenceId{1}}, kIgnore);
        lead.completed(++number, {});
    }
    for (const auto& operations : links.sent) {
        ASSERT_EQ(operations.size(), 6u);
        for (std::size_t i = 0; i < operations.size(); ++i) EXPECT_EQ(operations[i].number, i + 1);
    }
}

TEST_F(LeadTest, OnlyAFewOperationsAreUnderWayAtOnce) {
    for (int i = 0; i < 10; ++i) lead.submit(CloseSequence{SequenceId{1}}, kIgnore);
    EXPECT_EQ(links.sent[0].size(), 1u + Lead::kInFlightMax);
    lead.completed(++number, {});
    EXPECT_EQ(links.sent[0].size(), 2u + Lead::kInFlightMax);
}

TEST_F(LeadTest, AFullQueueIsBusyButStepsCanAlwaysEnd) {
    const StepId step = begin(1, 1);
    const std::size_t sent_before = links.sent[0].size();
    std::size_t busy = 0;
    const auto count_busy = [&](OperationResult result) {
        busy += !result.status && result.status.error() == Errc::busy;
    };
    for (std::size_t i = 0; i < Lead::kQueueMax + Lead::kInFlightMax + 3; ++i)
        lead.submit(CloseSequence{SequenceId{1}}, count_busy);
    EXPECT_EQ(busy, 3u);
    lead.abort(step, count_busy);
    EXPECT_EQ(busy, 3u);
    EXPECT_EQ(links.sent[0].size(), sent_before + Lead::kInFlightMax);
}

TEST_F(LeadTest, WaitingLayerCallsLeaveTogetherAndResultsAreCutApart) {
    const StepId a = begin(1, 1), b = begin(2, 2), c = begin(3, 3);
    lead.submit(ReportOccupancy{}, kIgnore);
    lead.submit(ReportOccupancy{}, kIgnore);  // both places are taken
    std::vector<std::size_t> got;
    for (auto [step, tokens] : {std::pair{a, 1}, {b, 2}, {c, 3}}) {
        lead.layer(step, 0, tensors(tokens), [&](OperationResult result) { got.push_back(result.tensors.size()); });
    }
    lead.completed(++number, {});
    const auto& sent = links.sent[0].back();
    EXPECT_EQ(std::get<RunLayer>(sent.body).steps, (std::vector{a, b, c}));
    EXPECT_EQ(lead.counters().layer_calls, 1u);
    EXPECT_EQ(lead.counters().merged_layer_calls, 3u);
    lead.completed(++number, {});
    OperationResult result;
    const std::size_t row = spec.query_heads * spec.row_bytes();
    result.tensors = comm::Payload::own(std::vector<std::byte>(6 * row));
    lead.completed(++number, std::move(result));
    EXPECT_EQ(got, (std::vector<std::size_t>{row, 2 * row, 3 * row}));
}

TEST_F(LeadTest, CallsInClientsMemoryGoThroughTheHostToSeveralRanks) {
    std::vector<std::byte> bytes(64 << 10);
    const DeviceOffsets at{.q = 0, .k = 4096, .v = 8192, .o = 16384};
    const auto inputs = tensors(1);
    const std::size_t q_bytes = spec.query_heads * spec.row_bytes(), k_bytes = spec.kv_heads * spec.row_bytes();
    ASSERT_EQ(inputs.size(), q_bytes + 2 * k_bytes);
    std::ranges::copy(inputs.bytes().first(q_bytes), bytes.begin() + at.q);
    std::ranges::copy(inputs.bytes().subspan(q_bytes, k_bytes), bytes.begin() + at.k);
    std::ranges::copy(inputs.bytes().last(k_bytes), bytes.begin() + at.v);
    const StepId through_host = begin(1, 1), in_place = begin(2, 1);
    lead.layer(through_host, 0, inputs, kIgnore);
    std::vector<comm::Payload> expected;
    for (const auto& sent : links.sent) expected.push_back(sent.back().tensors);
    lead.completed(++number, {});

    OperationResult got;
    lead.layer_in_place(in_place, 0, {.memory = std::make_shared<HostMemory>(bytes)}, at,
                        [&](OperationResult result) { got = std::move(result); });
    for (std::size_t rank = 0; rank < expected.size(); ++rank) {
        EXPECT_TRUE(std::ranges::equal(links.sent[rank].back().tensors.bytes(), expected[rank].bytes())) << rank;
    }
    OperationResult result;
    result.tensors = comm::Payload::own(std::vector<std::byte>(q_bytes, std::byte{9}));
    lead.completed(++number, std::move(result));
    EXPECT_TRUE(got.status);
    EXPECT_EQ(got.tensors.size(), 0u);
    EXPECT_EQ(std::ranges::count(bytes, std::byte{9}), static_cast<std::ptrdiff_t>(q_bytes));
    EXPECT_EQ(bytes[at.o + q_bytes - 1], std::byte{9});
}

TEST_F(LeadTest, CallsInMemoryThatAllRanksHaveOpenedBringPlacesAlone) {
    std::vector<std::byte> bytes(64 << 10);
    const DeviceOffsets at{.q = 0, .k = 4096, .v = 8192, .o = 16384};
    const StepId step = begin(1, 1);
    lead.layer_in_place(
        step, 0, {.memory = std::make_shared<HostMemory>(bytes), .number = 7, .is_open_everywhere = true}, at, kIgnore);
    for (const auto& sent : links.sent) {
        const auto& place = std::get<RunLayer>(sent.back().body).peers_place;
        EXPECT_EQ(sent.back().tensors.size(), 0u);
        EXPECT_EQ(place.memory, 7u);
        EXPECT_EQ(place.at.o, at.o);
    }
}

TEST_F(LeadTest, CallsInClientsMemoryLeaveAlone) {
    std::vector<std::byte> bytes(64 << 10);
    const DeviceRegion memory{.memory = std::make_shared<HostMemory>(bytes)};
    const DeviceOffsets at{0, 4096, 8192, 16384};
    RememberingLinks one{1};
    Lead alone{one};
    alone.submit(AddModel{kModel, spec, {1, 1}, 0}, kIgnore);
    std::vector<StepId> steps;
    for (std::uint64_t sequence : {1, 2, 3, 4}) {
        alone.begin({.step = {}, .model = kModel, .kind = StepKind::attend, .parts = {{SequenceId{sequence}, 1}}}, 1,
                    [&](StepId step, OperationResult) { steps.push_back(step); });
    }
    std::uint64_t done = 0;
    while (done < 5) alone.completed(++done, {});
    for (int i = 0; i < Lead::kInFlightMax; ++i) alone.submit(ReportOccupancy{}, kIgnore);  // all places are taken
    alone.layer(steps[0], 0, tensors(1), kIgnore);
    alone.layer_in_place(steps[1], 0, memory, at, kIgnore);
    alone.layer_in_place(steps[2], 0, memory, at, kIgnore);
    alone.layer(steps[3], 0, tensors(1), kIgnore);
    const std::size_t before = one.sent[0].size();
    while (done < 10) alone.completed(++done, {});
    std::vector<std::vector<StepId>> sent;
    for (std::size_t i = before; i < one.sent[0].size(); ++i) {
        sent.push_back(std::get<RunLayer>(one.sent[0][i].body).steps);
    }
    EXPECT_EQ(sent, (std::vector<std::vector<StepId>>{{steps[0], steps[3]}, {steps[1]}, {steps[2]}}));
    EXPECT_EQ(one.sent[0].back().tensors.size(), 0u);
    EXPECT_EQ(std::get<RunLayer>(one.sent[0].back().body).in_place.o.data(), bytes.data() + at.o);
}

TEST_F(LeadTest, ACallDoesNotOvertakeAnEarlierOneOfItsOwnStep) {
    const StepId a = begin(1, 1), b = begin(2, 1);
    lead.layer(b, 0, tensors(1), kIgnore);
    lead.completed(++number, {});
    lead.submit(ReportOccupancy{}, kIgnore);
    lead.submit(ReportOccupancy{}, kIgnore);
    lead.layer(a, 0, tensors(1), kIgnore);
    lead.layer(b, 1, tensors(1), kIgnore);
    lead.layer(a, 1, tensors(1), kIgnore);  // must come after a's layer 0: it may join b's layer 1 only behind that
    while (links.sent[0].size() > number) lead.completed(++number, {});
    std::vector<std::pair<int, std::vector<StepId>>> layers;
    for (const auto& operation : links.sent[0]) {
        if (const auto* layer = std::get_if<RunLayer>(&operation.body)) layers.emplace_back(layer->layer, layer->steps);
    }
    const std::vector<std::pair<int, std::vector<StepId>>> expected = {{0, {b}}, {0, {a}}, {1, {b, a}}};
    EXPECT_EQ(layers, expected);
}

TEST_F(LeadTest, EachRankGetsItsHeads) {
    const StepId step = begin(1, 2);
    std::vector<std::byte> bytes;
    const auto mark = [&](int heads, int base) {
        for (int token = 0; token < 2; ++token) {
            for (int head = 0; head < heads; ++head)
                bytes.insert(bytes.end(), spec.row_bytes(), std::byte(base + 10 * token + head));
        }
    };
    mark(6, 0), mark(3, 100), mark(3, 200);
    lead.layer(step, 0, comm::Payload::own(bytes), kIgnore);
    const auto heads_of = [&](int rank) {
        std::vector<int> heads;
        const auto sent = links.sent[rank].back().tensors.bytes();
        for (std::size_t at = 0; at < sent.size(); at += spec.row_bytes())
            heads.push_back(std::to_integer<int>(sent[at]));
        return heads;
    };
    // Head part 0 (ranks 0, 1) has KV heads 0 and 1, so query heads 0 to 3; head part 1 (ranks 2, 3) has KV head 2.
    const std::vector<int> part0 = {0, 1, 2, 3, 10, 11, 12, 13, 100, 101, 110, 111, 200, 201, 210, 211};
    const std::vector<int> part1 = {4, 5, 14, 15, 102, 112, 202, 212};
    EXPECT_EQ(heads_of(0), part0);
    EXPECT_EQ(heads_of(1), part0);
    EXPECT_EQ(heads_of(2), part1);
    EXPECT_EQ(heads_of(3), part1);
}

TEST_F(LeadTest, ABrokenLinkEndsEverythingWithItsReason) {
    begin(1, 1);
    links.broken_rank = 3;
    std::vector<Error> errors;
    const auto remember = [&](OperationResult result) { errors.push_back(result.status.error()); };
    lead.submit(ReportOccupancy{}, remember);
    lead.submit(ReportOccupancy{}, remember);
    ASSERT_EQ(errors.size(), 2u);
    for (const Error& error : errors) {
        EXPECT_EQ(error, Errc::peer_lost);
        EXPECT_NE(error.message.find("rank 3"), std::string::npos);
    }
    EXPECT_EQ(lead.open_step_count(), 0u);
}

TEST_F(LeadTest, ModelsThatTheGridRefusedAreForgotten) {
    lead.submit(AddModel{ModelId{2}, spec, {2, 2}, 0}, kIgnore);
    OperationResult refused;
    refused.status = Error{Errc::no_room, "full"};
    lead.completed(++number, refused);
    Errc code{};
    lead.begin({.step = {}, .model = ModelId{2}, .kind = StepKind::attend, .parts = {{SequenceId{1}, 1}}}, 1,
               [&](StepId, OperationResult result) { code = result.status.error().code; });
    EXPECT_EQ(code, Errc::not_found);
}

}  // namespace
}  // namespace kvgrid::worker
