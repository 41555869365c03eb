#include "coordinator/coordinator.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/log.h"

namespace kvgrid::coordinator {

namespace {

std::string misfit(const ModelRecord& model, const Grid& grid) {
    return fmt::format(
        "model {} is split {} x {} and the grid has {} workers: start with {} workers, or with an empty state "
        "directory",
        model.spec.name, model.grid.head_parts, model.grid.sequence_parts, grid.size(), model.grid.workers());
}

}  // namespace

Result<std::unique_ptr<Coordinator>> Coordinator::start(comm::IoThread& io, const Clock& clock, Catalogue catalogue,
                                                        Options options) {
    auto grid = catalogue.grid();
    if (!grid) return grid.error();
    auto sequences = catalogue.sequences();
    if (!sequences) return sequences.error();
    auto models = catalogue.models();  // read to be refused now if they make no sense
    if (!models) return models.error();

    std::unique_ptr<Coordinator> coordinator{
        new Coordinator(io, clock, std::move(catalogue), *std::move(grid), options)};
    for (const SequenceRecord& sequence : *sequences) {
        if (!sequence.confirmed) coordinator->abandoned_.add(sequence.id);
    }
    return coordinator;
}

Coordinator::Coordinator(comm::IoThread& io, const Clock& clock, Catalogue catalogue, Grid grid, Options options)
    : options_(options),
      clock_(clock),
      catalogue_(std::move(catalogue)),
      membership_(options.membership, std::move(grid), clock.now()),
      lead_(io),
      models_(catalogue_, lead_, clock, {.lead_timeout = options.lead_timeout}),
      abandoned_(catalogue_, lead_, clock) {}

void Coordinator::stop() {
    lead_.disconnect();
}

void Coordinator::tick() {
    for (const Worker& worker : membership_.tick(clock_.now())) {
        log_warn(fmt::format("{} is dead: nothing was heard of it for {} ms", membership_.describe(worker),
                             options_.membership.dead_after.count()));
    }
    advance();
}

void Coordinator::advance() {
    form_grid();
    if (!membership_.obstacle(clock_.now())) {
        begin_generation();
        models_.advance();
        if (!obstacle()) abandoned_.advance();
    }
    log_readiness();
}

void Coordinator::form_grid() {
    std::vector<Member> members = membership_.grid_to_form();
    if (members.empty()) return;
    auto formed = catalogue_.form_grid(std::move(members));
    if (!formed) return set_trouble("the next generation could not be recorded: " + formed.error().to_string());
    set_trouble("");

    lead_.end_generation();
    models_.begin({});
    for (const SequenceRecord& sequence : formed->lost) {
        log_warn(fmt::format("sequence {} of tenant {} ended with its generation", sequence.id.value, sequence.tenant));
    }
    membership_.form(std::move(formed->grid));
    for (const Worker& member : membership_.members()) {
        log_info(fmt::format("generation {}: {} at {}", membership_.grid().generation.value,
                             membership_.describe(member), member.process.endpoint));
    }
}

void Coordinator::begin_generation() {
    const Grid& grid = membership_.grid();
    if (lead_.generation() == grid.generation) return;
    auto models = catalogue_.models();
    if (!models) return set_trouble("the models could not be read: " + models.error().to_string());
    for (const ModelRecord& model : *models) {
        if (model.confirmed && model.grid.workers() != grid.size()) return set_trouble(misfit(model, grid));
    }
    if (auto connected = lead_.connect(grid); !connected) return set_trouble(connected.error().to_string());
    set_trouble("");
    models_.begin(*std::move(models));
}

Status Coordinator::require_ready() const {
    if (auto why = obstacle()) return {Errc::unavailable, "the grid is not ready: " + *why};
    return {};
}

std::optional<std::string> Coordinator::obstacle() const {
    if (!trouble_.empty()) return trouble_;
    if (auto why = membership_.obstacle(clock_.now())) return why;
    if (lead_.generation() != membership_.grid().generation) {
        return fmt::format("generation {} is about to begin", membership_.grid().generation.value);
    }
    return models_.obstacle();
}

Deadline Coordinator::lead_deadline(Deadline of_client) const {
    return std::min(of_client, deadline_in(options_.lead_timeout));
}

void Coordinator::set_trouble(std::string trouble) {
    if (trouble == trouble_) return;
    if (!trouble.empty()) log_error(trouble);
    trouble_ = std::move(trouble);
}

void Coordinator::log_readiness() {
    const auto why = obstacle();
    const bool ready = !why.has_value();
    if (ready == was_ready_) return;
    was_ready_ = ready;
    if (ready) {
        log_info(fmt::format("generation {} is ready: {} workers", membership_.grid().generation.value,
                             membership_.grid().size()));
    } else {
        log_warn("the grid is not ready: " + *why);
    }
}

}  // namespace kvgrid::coordinator
