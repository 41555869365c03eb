#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"
#include "core/version.h"

namespace kvgrid::coordinator {

namespace {

wire::WorkerStatus status_of(const Worker& worker, int rank) {
    wire::WorkerStatus status;
    status.set_worker(worker.id.value);
    status.set_rank(rank);
    status.set_endpoint(worker.process.endpoint);
    status.set_host(worker.process.host);
    status.set_process_id(worker.process.process_id);
    status.set_alive(worker.alive());
    status.set_draining(worker.said.draining);
    status.set_memory_bytes(worker.process.memory_bytes);
    status.set_http_endpoint(worker.said.http_endpoint);
    for (const PoolOccupancy& pool : worker.said.pools) *status.add_models() = to_wire(pool);
    status.set_version(worker.said.version);
    return status;
}

}  // namespace

Result<wire::StatusReply> status(Coordinator& coordinator, const wire::StatusRequest&) {
    const Membership& membership = coordinator.membership();
    const auto obstacle = coordinator.obstacle();
    wire::StatusReply reply;
    reply.set_generation(membership.grid().generation.value);
    reply.set_ready(!obstacle);
    if (obstacle) {
        reply.set_not_ready_because(*obstacle);
    } else {
        reply.set_lead_endpoint(membership.grid().members.front().process.endpoint);
    }
    for (const Worker& worker : membership.workers()) {
        *reply.add_workers() = status_of(worker, membership.rank_of(worker.id));
    }
    reply.set_version(kVersion);
    reply.set_http_endpoint(coordinator.http_endpoint());
    reply.set_last_loss(membership.last_loss());
    reply.set_reconciliations(coordinator.stocktaking().counts().runs);
    reply.set_differences(coordinator.stocktaking().counts().total());
    reply.set_expected_workers(static_cast<std::uint32_t>(membership.options().expected_workers));
    return reply;
}

}  // namespace kvgrid::coordinator
