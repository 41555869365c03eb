#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <unordered_map>

#include "comm/rpc/server.h"
#include "worker/device_memory.h"

namespace kvgrid::worker {

// The GPU memory that clients of this host share with the lead, one region for each connection. On the I/O thread.
class DeviceMemories {
  public:
    // As Device::open_memory.
    using Open =
        std::function<Result<std::shared_ptr<DeviceMemory>>(std::span<const std::byte> handle, std::uint64_t bytes)>;

    explicit DeviceMemories(Open open) : open_(std::move(open)) {}

    // Another region of the same connection takes the place of the first, and 0 bytes that of none. Whatever is refused changes nothing.
    Status share(const comm::Request& request, std::string_view handle, std::uint64_t bytes);
    void connection_lost(comm::ConnectionId connection) { regions_.erase(connection); }

    // Calls that are under way own it, too. wrong_state: the connection has shared none.
    Result<std::shared_ptr<DeviceMemory>> of(comm::ConnectionId connection) const;

  private:
    const Open open_;
    std::unordered_map<comm::ConnectionId, std::shared_ptr<DeviceMemory>> regions_;
};

}  // namespace kvgrid::worker
