#include <fmt/format.h>

#include "comm/rpc/endpoint.h"
#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"
#include "core/log.h"
#include "core/version.h"

namespace kvgrid::coordinator {

namespace {

constexpr std::size_t kHostBytesMax = 255;
constexpr std::size_t kWorkersMax = 4096;

Result<WorkerProcess> read_process(const wire::RegisterWorkerRequest& request) {
    const auto refuse = [](std::string why) { return Result<WorkerProcess>{Errc::invalid_argument, std::move(why)}; };
    if (request.incarnation() == 0) return refuse("incarnation is 0: must be a random number");
    if (request.memory_bytes() == 0) return refuse("memory_bytes is 0: a worker needs memory for pages");
    if (request.host().size() > kHostBytesMax) {
        return refuse(fmt::format("host has {} bytes: at most {}", request.host().size(), kHostBytesMax));
    }
    if (auto endpoint = comm::parse_endpoint(request.endpoint()); !endpoint) return endpoint.error();
    return WorkerProcess{.incarnation = request.incarnation(),
                         .endpoint = request.endpoint(),
                         .host = request.host(),
                         .process_id = request.process_id(),
                         .mpi_rank = request.mpi_rank(),
                         .memory_bytes = request.memory_bytes(),
                         .world = request.world()};
}

Result<WorkerId> id_of(Coordinator& coordinator, const WorkerProcess& process) {
    if (auto known = coordinator.membership().find(process.incarnation)) return *known;
    if (coordinator.membership().workers().size() >= kWorkersMax) {
        return {Errc::busy,
                fmt::format("{} workers are registered already: retry when some of them have ended", kWorkersMax)};
    }
    return coordinator.catalogue().take_worker_id();
}

}  // namespace

Result<wire::RegisterWorkerReply> register_worker(Coordinator& coordinator, const wire::RegisterWorkerRequest& request,
                                                  comm::ConnectionId connection) {
    auto process = read_process(request);
    if (!process) return process.error();
    auto id = id_of(coordinator, *process);
    if (!id) return id.error();

    coordinator.membership().add(*id, *process, coordinator.clock().now());
    coordinator.worker_connected(*id, connection);
    log_info(fmt::format("worker {} registered: pid {} on host {} at {}, {} bytes, version {}", id->value,
                         process->process_id, process->host, process->endpoint, process->memory_bytes,
                         request.version()));
    if (request.version() != kVersion) {
        log_warn(fmt::format("worker {} has version {}, the coordinator {}", id->value, request.version(), kVersion));
    }
    coordinator.advance();

    wire::RegisterWorkerReply reply;
    reply.set_worker(id->value);
    reply.set_heartbeat_ms(static_cast<std::uint32_t>(coordinator.options().heartbeat.count()));
    *reply.mutable_membership() = to_wire(coordinator.membership(), coordinator.lead().term());
    return reply;
}

}  // namespace kvgrid::coordinator
