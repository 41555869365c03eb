// After reconciliation catalogue and grid agree, and what a client was given and the grid still holds is untouched: shown over every
// combination of what the two can say of one model and one sequence, carried out on copies of both. Then the sentences that are logged.

#include "coordinator/reconciliation.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/core/model_spec_fixture.h"

namespace kvgrid::coordinator {
namespace {

using enum DifferenceKind;

constexpr std::uint64_t kPool = 1 << 20;

ModelRecord model(std::uint64_t id, bool confirmed = true) {
    ModelSpec spec = small_spec();
    spec.name = "m" + std::to_string(id);
    return {ModelId{id}, spec, {2, 1}, kPool, confirmed};
}

SequenceRecord sequence(std::uint64_t id, bool confirmed = true, std::uint64_t of_model = 1) {
    return {SequenceId{id}, ModelId{of_model}, "t", {}, confirmed};
}

std::vector<DifferenceKind> kinds(const Settlement& settlement) {
    std::vector<DifferenceKind> kinds;
    for (const Difference& difference : settlement.differences) kinds.push_back(difference.kind);
    return kinds;
}

template <class List, class Id>
bool has(const List& list, Id id) {
    return std::ranges::any_of(list, [id](const auto& entry) { return entry.id == id; });
}

// What the two say afterwards, when all of it has been done.
void carry_out(const Settlement& settlement, Catalogued& catalogued, Held& held) {
    for (const ModelRecord& confirmed : settlement.confirm) {
        for (ModelRecord& record : catalogued.models)
            if (record.id == confirmed.id) record = confirmed;
    }
    catalogued.models.insert(catalogued.models.end(), settlement.adopt.begin(), settlement.adopt.end());
    held.models.insert(held.models.end(), settlement.add.begin(), settlement.add.end());
    for (const ModelId id : settlement.erase_models)
        std::erase_if(catalogued.models, [id](const ModelRecord& record) { return record.id == id; });
    const auto erase = [&](SequenceId id) {
        std::erase_if(catalogued.sequences, [id](const SequenceRecord& record) { return record.id == id; });
    };
    for (const SequenceId id : settlement.erase_sequences) erase(id);
    for (const SequenceId id : settlement.close) {
        std::erase_if(held.sequences, [id](const HeldSequence& sequence) { return sequence.id == id; });
        erase(id);
    }
}

enum class InCatalogue { absent, reserved, confirmed };
enum class InGrid { absent, alike, otherwise };  // otherwise: a model with another pool, a sequence under another model

struct Case {
    InCatalogue catalogue;
    InGrid grid;
};

std::vector<Case> all_cases() {
    std::vector<Case> cases;
    for (const auto catalogue : {InCatalogue::absent, InCatalogue::reserved, InCatalogue::confirmed})
        for (const auto grid : {InGrid::absent, InGrid::alike, InGrid::otherwise}) cases.push_back({catalogue, grid});
    return cases;
}

TEST(Reconciliation, AfterwardsTheTwoAgreeAndNothingThatWasGivenAndIsHeldIsTouched) {
    for (const Case& of_model : all_cases()) {
        for (const Case& of_sequence : all_cases()) {
            for (const bool new_generation : {false, true}) {
                Catalogued catalogued{{model(9)}, {sequence(90, true, 9)}, new_generation};  // bystanders, in order
                Held held{{model(9)}, {{SequenceId{90}, ModelId{9}, 7}}};
                if (of_model.catalogue != InCatalogue::absent)
                    catalogued.models.push_back(model(1, of_model.catalogue == InCatalogue::confirmed));
                if (of_model.grid != InGrid::absent) held.models.push_back(model(1));
                if (of_model.grid == InGrid::otherwise) held.models.back().pool_bytes_per_worker *= 2;
                if (of_sequence.catalogue != InCatalogue::absent)
                    catalogued.sequences.push_back(sequence(5, of_sequence.catalogue == InCatalogue::confirmed));
                if (of_sequence.grid != InGrid::absent)
                    held.sequences.push_back({SequenceId{5}, ModelId{of_sequence.grid == InGrid::alike ? 1u : 9u}, 3});
                const bool stays = of_sequence.catalogue == InCatalogue::confirmed && of_sequence.grid == InGrid::alike;

                const Settlement settlement = reconcile(catalogued, held);
                carry_out(settlement, catalogued, held);

                EXPECT_EQ(settlement.conflict, "");
                EXPECT_TRUE(kinds(reconcile(catalogued, held)).empty()) << "a second run finds nothing";
                EXPECT_TRUE(has(held.sequences, SequenceId{90}) && has(catalogued.sequences, SequenceId{90}));
                EXPECT_EQ(has(held.sequences, SequenceId{5}), stays);
                EXPECT_EQ(has(catalogued.sequences, SequenceId{5}), stays);
                EXPECT_EQ(has(held.models, ModelId{1}), has(catalogued.models, ModelId{1}));
                EXPECT_EQ(has(held.models, ModelId{1}),
                          of_model.grid != InGrid::absent || of_model.catalogue == InCatalogue::confirmed);
            }
        }
    }
}

TEST(Reconciliation, WhatAgreesIsNoDifference) {
    const Settlement settlement =
        reconcile({{model(1)}, {sequence(5)}, false}, {{model(1)}, {{SequenceId{5}, ModelId{1}, 70}}});
    EXPECT_TRUE(settlement.differences.empty());
    EXPECT_TRUE(settlement.close.empty() && settlement.erase_sequences.empty() && settlement.add.empty());
}

TEST(Reconciliation, EachDifferenceOfASequenceIsNamed) {
    const Settlement settlement =
        reconcile({{model(1), model(2)}, {sequence(3), sequence(4, false), sequence(5, false), sequence(6)}, false},
                  {{model(1), model(2)},
                   {{SequenceId{4}, ModelId{1}, 0}, {SequenceId{6}, ModelId{2}, 8}, {SequenceId{7}, ModelId{1}, 64}}});

    EXPECT_EQ(kinds(settlement), (std::vector{sequence_unanswered, sequence_misplaced, sequence_unknown,
                                              sequence_missing, sequence_not_begun}));
    EXPECT_EQ(settlement.differences[2].text,
              "sequence 7 with 64 tokens is in the grid and not in the catalogue: closed");
    EXPECT_EQ(settlement.differences[3].text,
              "sequence 3 of tenant t is not in the grid: erased; it was lost, or closed by a call whose answer was");
    EXPECT_EQ(settlement.close, (std::vector{SequenceId{4}, SequenceId{6}, SequenceId{7}}));
    EXPECT_EQ(settlement.erase_sequences, (std::vector{SequenceId{3}, SequenceId{5}}));
}

TEST(Reconciliation, EachDifferenceOfAModelIsNamed) {
    ModelRecord resized = model(3);
    resized.pool_bytes_per_worker = 2 * kPool;
    const Settlement settlement = reconcile({{model(1), model(2, false), model(3), model(4, false)}, {}, false},
                                            {{model(2), resized, model(5)}, {}});

    EXPECT_EQ(kinds(settlement),
              (std::vector{model_missing, model_unanswered, model_resized, model_not_begun, model_unknown}));
    EXPECT_EQ(settlement.confirm.back().pool_bytes_per_worker, 2 * kPool) << "the grid has the pages";
    EXPECT_TRUE(settlement.adopt.front().confirmed);
}

TEST(Reconciliation, ANewGenerationHoldsNothingAndThatIsNoDifference) {
    const Settlement settlement = reconcile({{model(1)}, {}, true}, {});
    EXPECT_TRUE(settlement.differences.empty());
    ASSERT_EQ(settlement.add.size(), 1u);
}

TEST(Reconciliation, AModelThatIsAnotherIsLeftToAPerson) {
    ModelRecord other_split = model(1), other_spec = model(1), other_id = model(2);
    other_split.grid = {1, 2};
    other_spec.spec.scale = 0.5;
    other_id.spec.name = "m1";
    for (const ModelRecord& held : {other_split, other_spec, other_id}) {
        const Settlement settlement = reconcile({{model(1)}, {}, false}, {{held}, {}});
        EXPECT_NE(settlement.conflict.find("belongs to another state directory"), std::string::npos);
        EXPECT_TRUE(std::ranges::count(kinds(settlement), model_conflict) == 1);
    }
}

}  // namespace
}  // namespace kvgrid::coordinator
