#pragma once

#include <memory>

#include "worker/device.h"

namespace kvgrid::worker {

// How many GPUs this process can use; 0 also where this program was built without CUDA.
int usable_gpu_count();

// For one of `sharers` workers of this process that use the GPU at the same time: its kernels have so many blocks that all of them are
// resident together. `unavailable` where there is no GPU of this index, `unsupported` where this program was built without CUDA.
Result<std::unique_ptr<Device>> make_gpu_device(int index, int sharers = 1);

}  // namespace kvgrid::worker
