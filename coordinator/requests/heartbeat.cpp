#include <fmt/format.h>

#include "comm/rpc/endpoint.h"
#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"
#include "core/log.h"

namespace kvgrid::coordinator {

namespace {

Heartbeat from_wire(const wire::HeartbeatRequest& request) {
    Heartbeat heartbeat{.worker = WorkerId{request.worker()},
                        .formed = Generation{request.generation()},
                        .ready = request.ready(),
                        .problem = request.problem(),
                        .pools = {},
                        .version = request.version(),
                        .http_endpoint = {},
                        .broken = request.broken(),
                        .draining = request.draining(),
                        .drained = request.drained(),
                        .leaving = request.leaving()};
    if (comm::parse_endpoint(request.http_endpoint())) heartbeat.http_endpoint = request.http_endpoint();
    for (const wire::Occupancy& pool : request.models()) heartbeat.pools.push_back(coordinator::from_wire(pool));
    return heartbeat;
}

}  // namespace

Result<wire::HeartbeatReply> heartbeat(Coordinator& coordinator, const wire::HeartbeatRequest& request,
                                       comm::ConnectionId connection) {
    auto heard = coordinator.membership().hear(from_wire(request), coordinator.clock().now());
    if (!heard) return heard.error();
    coordinator.worker_connected(WorkerId{request.worker()}, connection);
    if (request.leaving()) log_info(fmt::format("worker {} has left", request.worker()));
    coordinator.advance();

    const Membership& membership = coordinator.membership();
    wire::HeartbeatReply reply;
    *reply.mutable_membership() = to_wire(membership, coordinator.lead().term());
    reply.set_draining(membership.draining().has_value());
    reply.set_drained(membership.is_drained());
    return reply;
}

}  // namespace kvgrid::coordinator
