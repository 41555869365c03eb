#include "worker/gpu_choice.h"

#include "kernels/cuda/device.h"
#include "worker/gpu/gpu_device.h"

namespace kvgrid::worker {

int usable_gpu_count() {
    return kernels::device_count();
}

Result<std::unique_ptr<Device>> make_gpu_device(int index, int sharers) {
    auto made = GpuDevice::make(index, sharers);
    if (!made) return made.error();
    return std::unique_ptr<Device>(std::move(*made));
}

}  // namespace kvgrid::worker
