#include "worker/shared_memory.h"

#include <fmt/format.h>

namespace kvgrid::worker {

Status SharedMemory::share(const comm::Request& request, int file, std::size_t bytes) {
    if (request.peer_process == 0) {
        return {Errc::unsupported, "memory can be shared over a Unix-domain socket of this host only"};
    }
    auto region = comm::SharedRegion::open(request.peer_process, file, bytes);
    if (!region) return region.error();
    connection_lost(request.connection);
    regions_[request.connection] = *std::move(region);
    return {};
}

void SharedMemory::connection_lost(comm::ConnectionId connection) {
    const auto found = regions_.find(connection);
    if (found == regions_.end()) return;
    found->second->close();
    regions_.erase(found);
}

Result<SharedMemory::Part> SharedMemory::part(comm::ConnectionId connection, std::uint64_t offset,
                                              std::uint64_t bytes) const {
    const auto found = regions_.find(connection);
    const std::uint64_t size = found == regions_.end() ? 0 : found->second->bytes().size();
    if (offset > size || bytes > size - offset) {
        return {Errc::invalid_argument,
                fmt::format("tensors of {} bytes at {} of shared memory: this connection has shared {} bytes", bytes,
                            offset, size)};
    }
    return Part{found->second, found->second->bytes().subspan(offset, bytes)};
}

}  // namespace kvgrid::worker
