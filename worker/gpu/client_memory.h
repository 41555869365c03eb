#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/result.h"
#include "worker/device_memory.h"

namespace kvgrid::worker {

// Opens, for kernels on GPU `device`, the first `bytes` of an allocation of another process by its CUDA IPC handle. On any thread; that and the
// end of the memory make `device` the thread's current one. Both are logged.
//
//   Errors  invalid_argument: the allocation is smaller, or the handle opens nothing. unsupported: this GPU cannot reach its GPU.
Result<std::shared_ptr<DeviceMemory>> open_client_memory(int device, std::span<const std::byte> handle,
                                                         std::uint64_t bytes);

}  // namespace kvgrid::worker
