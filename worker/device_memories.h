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

    // Another region of the same connection takes the place of the first. Whatever is refused changes nothing. Returns the region's number.
    Result<std::uint64_t> share(const comm::Request& request, std::string_view handle, std::uint64_t bytes);
    // Returns what the connection had; memory null: nothing.
    DeviceRegion let_go(comm::ConnectionId connection);
    // If the connection still has it.
    void is_open_everywhere(comm::ConnectionId connection, std::uint64_t number);

    // Calls that are under way own it, too. wrong_state: the connection has shared none.
    Result<DeviceRegion> of(comm::ConnectionId connection) const;

  private:
    const Open open_;
    std::unordered_map<comm::ConnectionId, DeviceRegion> regions_;
    std::uint64_t last_number_ = 0;
};

}  // namespace kvgrid::worker
