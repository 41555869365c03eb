#include "worker/device_memories.h"

#include <fmt/format.h>
#include <unistd.h>

namespace kvgrid::worker {

Result<std::uint64_t> DeviceMemories::share(const comm::Request& request, std::string_view handle,
                                            std::uint64_t bytes) {
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
    regions_[request.connection] = {.memory = *std::move(opened), .number = ++last_number_};
    return last_number_;
}

DeviceRegion DeviceMemories::let_go(comm::ConnectionId connection) {
    const auto found = regions_.extract(connection);
    return found ? found.mapped() : DeviceRegion{};
}

void DeviceMemories::is_open_everywhere(comm::ConnectionId connection, std::uint64_t number) {
    const auto found = regions_.find(connection);
    if (found != regions_.end() && found->second.number == number) found->second.is_open_everywhere = true;
}

Result<DeviceRegion> DeviceMemories::of(comm::ConnectionId connection) const {
    const auto found = regions_.find(connection);
    if (found != regions_.end()) return found->second;
    return {Errc::wrong_state,
            "this connection has shared no GPU memory: share it first, and again after a connection was lost"};
}

}  // namespace kvgrid::worker
