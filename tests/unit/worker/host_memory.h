#pragma once

#include <algorithm>
#include <vector>

#include "worker/device_memory.h"

namespace kvgrid::worker {

// A client's GPU memory, for tests without a GPU.
struct HostMemory final : DeviceMemory {
    explicit HostMemory(std::vector<std::byte>& bytes) : DeviceMemory(bytes) {}
    Status read(std::span<const std::byte> part, std::span<std::byte> host) const override {
        std::ranges::copy(part, host.begin());
        return {};
    }
    Status write(std::span<std::byte> part, std::span<const std::byte> host) const override {
        std::ranges::copy(host, part.begin());
        return {};
    }
};

}  // namespace kvgrid::worker
