#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/catalogue.h"

namespace kvgrid::coordinator {

// What a grid holds, as its shards say.
struct HeldSequence {
    SequenceId id;
    ModelId model;
    std::int64_t length = 0;
};
struct Held {
    std::vector<ModelRecord> models;
    std::vector<HeldSequence> sequences;
};

// What the catalogue says that it holds.
struct Catalogued {
    std::vector<ModelRecord> models;
    std::vector<SequenceRecord> sequences;
    bool new_generation = false;  // its grid was formed just now, and holds nothing
};

// How the two can differ. What is done about it is written down in docs/decisions/0012-reconciliation.md.
enum class DifferenceKind {
    model_unanswered,  // held, and nobody was told: confirmed
    model_not_begun,   // reserved, not held: erased
    model_missing,     // confirmed, not held: added to the grid again
    model_resized,     // held with a pool of another size: the grid is right
    model_unknown,     // held, not catalogued: taken into the catalogue
    model_conflict,    // held with another spec, split or name than catalogued: nothing is done, a person has to decide
    sequence_unanswered,  // held, and nobody was given it: closed
    sequence_not_begun,   // reserved, not held: erased
    sequence_missing,     // confirmed, not held: erased; its client finds it gone
    sequence_unknown,     // held, not catalogued: closed
    sequence_misplaced,   // held under another model than catalogued: closed and erased
};
inline constexpr int kDifferenceKinds = 11;
const char* name_of(DifferenceKind kind);

struct Difference {
    DifferenceKind kind;
    std::string text;  // which model or sequence, and what is done
};

struct Settlement {
    std::vector<Difference> differences;
    // In the catalogue.
    std::vector<ModelRecord> confirm;  // also with another pool size
    std::vector<ModelRecord> adopt;
    std::vector<ModelId> erase_models;
    std::vector<SequenceId> erase_sequences;
    // In the grid.
    std::vector<ModelRecord> add;
    std::vector<SequenceId> close;  // and then erase
    // Not empty: nothing above may be done.
    std::string conflict;
};

// Decides what makes the two agree. The grid is right about what exists, the catalogue about what was promised to whom: nothing that a
// client was given and the grid holds is touched.
Settlement reconcile(const Catalogued& catalogued, const Held& held);

struct ReconciliationCounts {
    std::uint64_t runs = 0;
    std::array<std::uint64_t, kDifferenceKinds> differences{};  // by kind

    std::uint64_t total() const;
};

}  // namespace kvgrid::coordinator
