#pragma once

#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "comm/rpc/server.h"
#include "worker/device_memory.h"

namespace kvgrid::wire {
class ShareDeviceMemoryRequest;
}

namespace kvgrid::worker {

// The GPU memory that clients of this host share with the lead: some regions for each connection, by the numbers that the client gives them. On the
// I/O thread.
class DeviceMemories {
  public:
    static constexpr std::uint32_t kOfConnectionMax = 16;

    // As Device::open_memory.
    using Open =
        std::function<Result<std::shared_ptr<DeviceMemory>>(std::span<const std::byte> handle, std::uint64_t bytes)>;

    explicit DeviceMemories(Open open) : open_(std::move(open)) {}

    // Another region of the same connection and number takes the place of the first. Whatever is refused changes nothing. Returns the new one, and what was
    // there before (memory null: nothing).
    struct Shared {
        DeviceRegion now, before;
    };
    Result<Shared> share(const comm::Request& request, const wire::ShareDeviceMemoryRequest& wanted);
    // Returns what the connection had; memory null: nothing.
    DeviceRegion let_go(comm::ConnectionId connection, std::uint32_t memory);
    std::vector<DeviceRegion> let_go_all(comm::ConnectionId connection);
    // If the connection still has it.
    void is_open_everywhere(comm::ConnectionId connection, std::uint64_t number);

    // Calls that are under way own it, too. wrong_state: the connection has shared none of that number.
    Result<DeviceRegion> of(comm::ConnectionId connection, std::uint32_t memory) const;

  private:
    const Open open_;
    std::unordered_map<comm::ConnectionId, std::map<std::uint32_t, DeviceRegion>> regions_;
    std::uint64_t last_number_ = 0;
};

}  // namespace kvgrid::worker
