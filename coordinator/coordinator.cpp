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

KeptPrefix kept_prefix(const SequenceRecord& record, const ModelSpec& spec) {
    const bool slides = std::ranges::any_of(spec.layers, [](const LayerSpec& layer) { return layer.window > 0; });
    return {record.id, record.model, record.tenant, record.prefix, slides};
}

Result<std::unique_ptr<Coordinator>> Coordinator::start(comm::IoThread& io, const Clock& clock, Catalogue catalogue,
                                                        Options options) {
    auto grid = catalogue.grid();
    if (!grid) return grid.error();
    // Read to be refused now if they make no sense.
    if (auto sequences = catalogue.sequences(); !sequences) return sequences.error();
    if (auto models = catalogue.models(); !models) return models.error();
    auto term = catalogue.take_term();
    if (!term) return term.error();
    return std::unique_ptr<Coordinator>{
        new Coordinator(io, clock, std::move(catalogue), *std::move(grid), *term, options)};
}

Coordinator::Coordinator(comm::IoThread& io, const Clock& clock, Catalogue catalogue, Grid grid, std::uint64_t term,
                         Options options)
    : options_(options),
      clock_(clock),
      catalogue_(std::move(catalogue)),
      membership_(options.membership, std::move(grid), clock.now()),
      lead_(io, term),
      models_(catalogue_, lead_, clock, {.lead_timeout = options.lead_timeout}),
      abandoned_(catalogue_, lead_, clock),
      prefixes_(options.prefixes_max),
      stocktaking_(catalogue_, lead_, models_, abandoned_, clock) {}

void Coordinator::stop() {
    lead_.disconnect();
}

void Coordinator::tick() {
    for (const Worker& worker : membership_.tick(clock_.now())) {
        log_warn(fmt::format("{} is dead: {}", membership_.describe(worker),
                             worker.state == Worker::State::silent ? fmt::format("nothing was heard of it for {} ms",
                                                                                 options_.membership.dead_after.count())
                                                                   : "its connection broke, and it did not come back"));
    }
    advance();
}

void Coordinator::advance() {
    form_grid();
    if (!membership_.obstacle(clock_.now())) {
        begin_generation();
        stocktaking_.advance();
        models_.advance();
        if (!obstacle_to_anything()) abandoned_.advance();
    }
    log_readiness();
}

void Coordinator::form_grid() {
    std::vector<Member> members = membership_.grid_to_form(clock_.now());
    if (members.empty()) return;
    auto formed = catalogue_.form_grid(std::move(members));
    if (!formed) return set_trouble("the next generation could not be recorded: " + formed.error().to_string());
    set_trouble("");

    lead_.end_generation();
    models_.begin({});
    for (const SequenceRecord& sequence : formed->lost) {
        if (!sequence.confirmed) continue;  // nobody was given it
        log_warn(fmt::format("sequence {} of tenant {} ended with its generation", sequence.id.value, sequence.tenant));
    }
    if (!membership_.lost().empty()) {
        log_warn(fmt::format("generation {} ends: {}", membership_.grid().generation.value, membership_.lost()));
    }
    membership_.form(std::move(formed->grid), clock_.now());
    new_generation_ = true;
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
    if (auto taken = take_up_prefixes(*models); !taken) {
        return set_trouble("the sequences could not be read: " + taken.error().to_string());
    }
    if (auto connected = lead_.connect(grid); !connected) return set_trouble(connected.error().to_string());
    set_trouble("");
    stocktaking_.begin(new_generation_);
}

// What the grid has lost of them is found when it is wanted.
Status Coordinator::take_up_prefixes(std::span<const ModelRecord> models) {
    auto sequences = catalogue_.sequences();
    if (!sequences) return sequences.error();
    prefixes_.clear();
    for (const SequenceRecord& record : *sequences) {
        const auto model = std::ranges::find(models, record.model, &ModelRecord::id);
        if (!record.confirmed || record.prefix.empty() || model == models.end()) continue;
        for (const SequenceId ended : prefixes_.add(kept_prefix(record, model->spec))) abandoned_.add(ended);
    }
    return {};
}

void Coordinator::abandon(std::span<const SequenceId> sequences) {
    for (const SequenceId id : sequences) abandoned_.add(id);
    if (!sequences.empty()) advance();
}

void Coordinator::worker_connected(WorkerId worker, comm::ConnectionId connection) {
    worker_of_connection_[connection] = worker;
}

void Coordinator::connection_lost(comm::ConnectionId connection) {
    const auto worker = worker_of_connection_.extract(connection);
    if (!worker) return;
    const bool has_another =
        std::ranges::any_of(worker_of_connection_, [&](const auto& entry) { return entry.second == worker.mapped(); });
    if (!has_another) membership_.disconnected(worker.mapped(), clock_.now());
}

Status Coordinator::require_ready() const {
    if (auto why = obstacle()) return {Errc::unavailable, "the grid is not ready: " + *why};
    return {};
}

Status Coordinator::require_lead() const {
    if (auto why = obstacle_to_anything()) return {Errc::unavailable, "the grid is not ready: " + *why};
    return {};
}

std::optional<std::string> Coordinator::obstacle() const {
    if (auto why = obstacle_to_anything()) return why;
    return membership_.draining();
}

std::optional<std::string> Coordinator::obstacle_to_anything() const {
    if (!trouble_.empty()) return trouble_;
    if (auto why = membership_.obstacle(clock_.now())) return why;
    if (lead_.generation() != membership_.grid().generation) {
        return fmt::format("generation {} is about to begin", membership_.grid().generation.value);
    }
    if (auto why = stocktaking_.obstacle()) return why;
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
