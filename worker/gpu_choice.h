#pragma once

#include <memory>

#include "worker/device.h"

namespace kvgrid::worker {

// How many GPUs this process can use; 0 also where this program was built without CUDA.
int usable_gpu_count();

// `unavailable` where there is no GPU of this index, `unsupported` where this program was built without CUDA. To be called on the thread
// that will use the device.
Result<std::unique_ptr<Device>> make_gpu_device(int index);

}  // namespace kvgrid::worker
