#include "worker/device_memories.h"

#include <fmt/format.h>
#include <unistd.h>

namespace kvgrid::worker {

Status DeviceMemories::share(const comm::Request& request, std::string_view handle, std::uint64_t bytes) {
    if (bytes == 0) {
        connection_lost(request.connection);
        return {};
    }
    if (request.peer_process == 0) {
        return {Errc::unsupported, "GPU memory can be shared over a Unix-domain socket of this host only"};
    }
    if (request.peer_process == getpid()) {
        return {Errc::unsupported,
                "the GPU memory is of the worker's own process, and needs no handle there: embed a shard instead "
                "(docs/embedded.md)"};
    }
    if (handle.size() != DeviceMemory::kHandleBytes) {
        return {Errc::invalid_argument, fmt::format("a handle of {} bytes: cudaIpcGetMemHandle gives {}", handle.size(),
                                                    DeviceMemory::kHandleBytes)};
    }
    auto opened = open_(std::as_bytes(std::span(handle)), bytes);
    if (!opened) return opened.error();
    regions_[request.connection] = *std::move(opened);
    return {};
}

Result<std::shared_ptr<DeviceMemory>> DeviceMemories::of(comm::ConnectionId connection) const {
    const auto found = regions_.find(connection);
    if (found != regions_.end()) return found->second;
    return {Errc::wrong_state,
            "this connection has shared no GPU memory: share it first, and again after a connection was lost"};
}

}  // namespace kvgrid::worker
