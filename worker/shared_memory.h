#pragma once

#include <memory>
#include <unordered_map>

#include "comm/rpc/server.h"
#include "comm/rpc/shared_region.h"

namespace kvgrid::worker {

// The memory that clients of this host share with the lead, one region for each connection. On the I/O thread.
class SharedMemory {
  public:
    // Another region of the same connection takes the place of the first. unsupported: the peer is not on this host.
    Status share(const comm::Request& request, int file, std::size_t bytes);
    void connection_lost(comm::ConnectionId connection);

    // A part of a connection's region, and its owner, which keeps it mapped. invalid_argument: it has none, or a smaller one.
    struct Part {
        std::shared_ptr<comm::SharedRegion> region;
        std::span<std::byte> bytes;
    };
    Result<Part> part(comm::ConnectionId connection, std::uint64_t offset, std::uint64_t bytes) const;

  private:
    std::unordered_map<comm::ConnectionId, std::shared_ptr<comm::SharedRegion>> regions_;
};

}  // namespace kvgrid::worker
