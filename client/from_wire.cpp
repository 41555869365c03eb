#include "client/from_wire.h"

#include <fmt/core.h>

#include <algorithm>

namespace kvgrid {
namespace {

ModelOccupancy occupancy_from(const wire::Occupancy& occupancy) {
    return {.model = {occupancy.model()},
            .page_bytes = occupancy.page_bytes(),
            .capacity_pages = occupancy.capacity_pages(),
            .free_pages = occupancy.free_pages(),
            .used_pages = occupancy.used_pages(),
            .reserved_pages = occupancy.reserved_pages(),
            .shared_pages = occupancy.shared_pages(),
            .sequences = occupancy.sequences(),
            .stored_tokens = occupancy.stored_tokens()};
}

ClusterWorker worker_from(const wire::WorkerStatus& worker) {
    ClusterWorker made{.worker = {worker.worker()},
                       .rank = worker.rank(),
                       .endpoint = worker.endpoint(),
                       .host = worker.host(),
                       .process_id = worker.process_id(),
                       .alive = worker.alive(),
                       .draining = worker.draining(),
                       .memory_bytes = worker.memory_bytes(),
                       .version = worker.version(),
                       .http_endpoint = worker.http_endpoint()};
    for (const auto& model : worker.models()) made.models.push_back(occupancy_from(model));
    return made;
}

}  // namespace

ClusterStatus from_wire(const wire::StatusReply& reply) {
    ClusterStatus status{.generation = {reply.generation()},
                         .ready = reply.ready(),
                         .not_ready_because = reply.not_ready_because(),
                         .expected_workers = static_cast<int>(reply.expected_workers()),
                         .version = reply.version(),
                         .http_endpoint = reply.http_endpoint()};
    for (const auto& worker : reply.workers()) status.workers.push_back(worker_from(worker));
    return status;
}

Result<RegisteredModel> from_wire(const wire::ModelReply& reply) {
    auto spec = parse_model_spec(reply.spec_json());
    if (!spec)
        return {Errc::corrupt,
                fmt::format("the coordinator's spec of model {}: {}", reply.model(), spec.error().message)};
    return RegisteredModel{.id = {reply.model()},
                           .spec = std::move(*spec),
                           .grid = {reply.head_parts(), reply.sequence_parts()},
                           .pool_bytes_per_worker = reply.pool_bytes_per_worker()};
}

GridOccupancy from_wire(const wire::OccupancyReply& reply) {
    GridOccupancy grid{.operations = reply.operations(),
                       .join_bytes = reply.join_bytes(),
                       .layer_calls = reply.layer_calls(),
                       .merged_layer_calls = reply.merged_layer_calls(),
                       .non_finite_refusals = reply.non_finite_refusals(),
                       .steps_abandoned = reply.steps_abandoned(),
                       .steps_timed_out = reply.steps_timed_out()};
    for (const auto& each : reply.workers()) {
        WorkerOccupancy worker{.worker = {each.worker()}, .rank = each.rank()};
        for (const auto& model : each.models()) worker.models.push_back(occupancy_from(model));
        grid.workers.push_back(std::move(worker));
    }
    return grid;
}

SequencePage from_wire(const wire::ListSequencesReply& reply) {
    SequencePage page{.more = reply.more()};
    for (const auto& each : reply.sequences()) {
        page.sequences.push_back({.id = {each.sequence()},
                                  .model = {each.model()},
                                  .tenant = each.tenant(),
                                  .parent = {each.parent()},
                                  .kept_tokens = each.kept_tokens()});
    }
    return page;
}

SequenceInfo from_wire(const wire::InspectSequenceReply& reply) {
    return {.model = {reply.model()},
            .length = reply.length(),
            .window = reply.window(),
            .sinks = reply.sinks(),
            .step_open = reply.step_open(),
            .pages_by_rank = {reply.pages_by_rank().begin(), reply.pages_by_rank().end()}};
}

void put(std::span<const PrefixHash> prefix, google::protobuf::RepeatedPtrField<std::string>& names) {
    for (const PrefixHash& name : prefix) names.Add()->assign(reinterpret_cast<const char*>(name.data()), name.size());
}

Result<GridTrace> from_wire(const wire::TraceReply& reply) {
    GridTrace trace;
    for (const auto& each : reply.ranks()) {
        RankTrace& rank = trace.ranks.emplace_back(RankTrace{.rank = each.rank(),
                                                             .host = each.host(),
                                                             .process_id = each.process_id(),
                                                             .finished = each.finished(),
                                                             .steps = static_cast<int>(each.steps()),
                                                             .dropped = each.dropped(),
                                                             .spans = {}});
        for (const auto& span : each.spans()) {
            const int kind = static_cast<int>(span.kind());
            if (kind < 0 || kind >= reply.kinds_size())
                return {Errc::corrupt, fmt::format("the lead sent a span of kind {} of {}", kind, reply.kinds_size())};
            const auto lane = std::min(reply.kinds(kind).lane(), static_cast<std::uint32_t>(TraceLane::waiting));
            rank.spans.push_back({reply.kinds(kind).name(), static_cast<TraceLane>(lane), span.start_ns(),
                                  span.start_ns() + span.duration_ns(), span.operation()});
        }
    }
    return trace;
}

}  // namespace kvgrid
