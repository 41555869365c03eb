#include "worker/device_memories.h"

#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "comm/wire/kvgrid.pb.h"

namespace kvgrid::worker {

Result<DeviceMemories::Shared> DeviceMemories::share(const comm::Request& request,
                                                     const wire::ShareDeviceMemoryRequest& wanted) {
    if (request.peer_process == 0) {
        return {Errc::unsupported, "GPU memory can be shared over a Unix-domain socket of this host only"};
    }
    if (request.peer_process == getpid()) {
        return {Errc::unsupported,
                "the GPU memory is of the worker's own process, and needs no handle there: embed a shard instead "
                "(docs/embedded.md)"};
    }
    if (wanted.memory() >= kOfConnectionMax) {
        return {Errc::invalid_argument,
                fmt::format("GPU memory {}: a connection has at most {}, which are numbered from 0", wanted.memory(),
                            kOfConnectionMax)};
    }
    if (wanted.handle().size() != DeviceMemory::kHandleBytes) {
        return {Errc::invalid_argument, fmt::format("a handle of {} bytes: cudaIpcGetMemHandle gives {}",
                                                    wanted.handle().size(), DeviceMemory::kHandleBytes)};
    }
    auto opened = open_(std::as_bytes(std::span(wanted.handle())), wanted.bytes());
    if (!opened) return opened.error();
    DeviceRegion& place = regions_[request.connection][wanted.memory()];
    DeviceRegion before = std::exchange(place, {.memory = *std::move(opened), .number = ++last_number_});
    return Shared{place, std::move(before)};
}

DeviceRegion DeviceMemories::let_go(comm::ConnectionId connection, std::uint32_t memory) {
    const auto of_connection = regions_.find(connection);
    if (of_connection == regions_.end()) return {};
    const auto found = of_connection->second.extract(memory);
    return found ? found.mapped() : DeviceRegion{};
}

std::vector<DeviceRegion> DeviceMemories::let_go_all(comm::ConnectionId connection) {
    std::vector<DeviceRegion> had;
    if (const auto found = regions_.extract(connection)) {
        for (auto& [memory, region] : found.mapped()) had.push_back(std::move(region));
    }
    return had;
}

void DeviceMemories::is_open_everywhere(comm::ConnectionId connection, std::uint64_t number) {
    const auto found = regions_.find(connection);
    if (found == regions_.end()) return;
    for (auto& [memory, region] : found->second) {
        if (region.number == number) region.is_open_everywhere = true;
    }
}

Result<DeviceRegion> DeviceMemories::of(comm::ConnectionId connection, std::uint32_t memory) const {
    if (const auto of_connection = regions_.find(connection); of_connection != regions_.end()) {
        const auto found = of_connection->second.find(memory);
        if (found != of_connection->second.end()) return found->second;
    }
    return {Errc::wrong_state,
            fmt::format("this connection has shared no GPU memory {}: share it first, and again after "
                        "a connection was lost",
                        memory)};
}

}  // namespace kvgrid::worker
