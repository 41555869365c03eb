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

                        .http_endpoint = {}};
    if (comm::parse_endpoint(request.http_endpoint())) heartbeat.http_endpoint = request.http_endpoint();
    for (const wire::Occupancy& pool : request.models()) heartbeat.pools.push_back(coordinator::from_wire(pool));
    return heartbeat;
}

}  // namespace

Result<wire::HeartbeatReply> heartbeat(Coordinator& coordinator, const wire::HeartbeatRequest& request) {
    auto was_dead = coordinator.membership().hear(from_wire(request), coordinator.clock().now());
    if (!was_dead) return was_dead.error();
    if (*was_dead) log_info(fmt::format("worker {} is heard of again", request.worker()));
    coordinator.advance();

    wire::HeartbeatReply reply;
    *reply.mutable_membership() = to_wire(coordinator.membership().grid());
    return reply;
}

}  // namespace kvgrid::coordinator
