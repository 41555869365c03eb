#include "coordinator/reconciliation.h"

#include <fmt/format.h>

#include <map>
#include <numeric>

namespace kvgrid::coordinator {

namespace {

using enum DifferenceKind;

struct Pairing {
    const ModelRecord* catalogued = nullptr;
    const ModelRecord* held = nullptr;
};

std::string describe(const ModelRecord& model) {
    return fmt::format("model {} ({})", model.id.value, model.spec.name);
}

std::string describe(const SequenceRecord& sequence) {
    return fmt::format("sequence {} of tenant {}", sequence.id.value, sequence.tenant);
}

void note(Settlement& settlement, DifferenceKind kind, std::string text) {
    settlement.differences.push_back({kind, std::move(text)});
}

void conflict(Settlement& settlement, const std::string& what) {
    const std::string text = what +
                             ": this grid belongs to another state directory; start the coordinator with that one, or "
                             "end the workers and start "
                             "new ones";
    note(settlement, model_conflict, text);
    if (settlement.conflict.empty()) settlement.conflict = text;
}

void reconcile_both(Settlement& settlement, const ModelRecord& catalogued, const ModelRecord& held) {
    if (catalogued.spec != held.spec || catalogued.grid != held.grid) {
        return conflict(
            settlement,
            fmt::format("{} is held as {}, {} x {} parts, and not with the spec and the {} x {} parts "
                        "of the catalogue",
                        describe(catalogued), held.spec.name, held.grid.head_parts, held.grid.sequence_parts,
                        catalogued.grid.head_parts, catalogued.grid.sequence_parts));
    }
    if (!catalogued.confirmed) {
        note(settlement, model_unanswered,
             describe(catalogued) +
                 " was added to the grid and nobody was told: confirmed, registering it again finds it");
    } else if (catalogued.pool_bytes_per_worker != held.pool_bytes_per_worker) {
        note(settlement, model_resized,
             fmt::format("{} has pools of {} bytes, and not of {} as catalogued: the catalogue is mended",
                         describe(catalogued), held.pool_bytes_per_worker, catalogued.pool_bytes_per_worker));
    } else {
        return;
    }
    settlement.confirm.push_back(held);
}

void reconcile_catalogued(Settlement& settlement, const ModelRecord& model, bool new_generation) {
    if (!model.confirmed) {
        note(settlement, model_not_begun,
             describe(model) + " was never added to the grid, and nobody was told: erased");
        return settlement.erase_models.push_back(model.id);
    }
    if (!new_generation) note(settlement, model_missing, describe(model) + " is not in the grid: added again");
    settlement.add.push_back(model);
}

void reconcile_held(Settlement& settlement, const ModelRecord& model, const std::map<std::string, ModelId>& names) {
    if (const auto taken = names.find(model.spec.name); taken != names.end()) {
        return conflict(settlement, fmt::format("{} is in the grid, and the catalogue has its name for model {}",
                                                describe(model), taken->second.value));
    }
    note(settlement, model_unknown,
         describe(model) +
             " is in the grid and not in the catalogue: taken into it, since the grid cannot give it back");
    settlement.adopt.push_back(model);
    settlement.adopt.back().confirmed = true;
}

void reconcile_models(Settlement& settlement, const Catalogued& catalogued, const Held& held) {
    std::map<ModelId, Pairing> pairs;
    std::map<std::string, ModelId> names;
    for (const ModelRecord& model : catalogued.models) {
        pairs[model.id].catalogued = &model;
        names[model.spec.name] = model.id;
    }
    for (const ModelRecord& model : held.models) pairs[model.id].held = &model;
    for (const auto& [id, pair] : pairs) {
        if (!pair.held) {
            reconcile_catalogued(settlement, *pair.catalogued, catalogued.new_generation);
        } else if (pair.catalogued) {
            reconcile_both(settlement, *pair.catalogued, *pair.held);
        } else {
            reconcile_held(settlement, *pair.held, names);
        }
    }
}

void reconcile_catalogued(Settlement& settlement, const SequenceRecord& record) {
    settlement.erase_sequences.push_back(record.id);
    if (!record.confirmed) {
        return note(settlement, sequence_not_begun,
                    describe(record) + " was never opened in the grid, and nobody was given it: erased");
    }
    note(settlement, sequence_missing,
         describe(record) + " is not in the grid: erased; it was lost, or closed by a call whose answer was");
}

void reconcile_held(Settlement& settlement, const HeldSequence& held, const SequenceRecord* record) {
    if (!record) {
        note(settlement, sequence_unknown,
             fmt::format("sequence {} with {} tokens is in the grid and not in the catalogue: closed", held.id.value,
                         held.length));
    } else if (record->model != held.model) {
        note(settlement, sequence_misplaced,
             fmt::format("{} is held under model {}, and not {} as catalogued: closed", describe(*record),
                         held.model.value, record->model.value));
    } else if (!record->confirmed) {
        note(settlement, sequence_unanswered, describe(*record) + " was opened and nobody was given it: closed");
    } else {
        return;
    }
    settlement.close.push_back(held.id);
}

void reconcile_sequences(Settlement& settlement, const Catalogued& catalogued, const Held& held) {
    std::map<SequenceId, const SequenceRecord*> missing;
    for (const SequenceRecord& record : catalogued.sequences) missing[record.id] = &record;
    for (const HeldSequence& sequence : held.sequences) {
        const auto record = missing.extract(sequence.id);
        reconcile_held(settlement, sequence, record ? record.mapped() : nullptr);
    }
    for (const auto& [id, record] : missing) reconcile_catalogued(settlement, *record);
}

}  // namespace

const char* name_of(DifferenceKind kind) {
    switch (kind) {
        case model_unanswered:
            return "model_unanswered";
        case model_not_begun:
            return "model_not_begun";
        case model_missing:
            return "model_missing";
        case model_resized:
            return "model_resized";
        case model_unknown:
            return "model_unknown";
        case model_conflict:
            return "model_conflict";
        case sequence_unanswered:
            return "sequence_unanswered";
        case sequence_not_begun:
            return "sequence_not_begun";
        case sequence_missing:
            return "sequence_missing";
        case sequence_unknown:
            return "sequence_unknown";
        case sequence_misplaced:
            return "sequence_misplaced";
    }
    return "unknown";
}

Settlement reconcile(const Catalogued& catalogued, const Held& held) {
    Settlement settlement;
    reconcile_models(settlement, catalogued, held);
    reconcile_sequences(settlement, catalogued, held);
    return settlement;
}

std::uint64_t ReconciliationCounts::total() const {
    return std::accumulate(differences.begin(), differences.end(), std::uint64_t{0});
}

}  // namespace kvgrid::coordinator
