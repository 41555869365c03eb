// Of a build without NCCL: GPUs join over their hosts.
#include "worker/gpu/gpu_device.h"

namespace kvgrid::worker {

void GpuDevice::prepare_joins() {}

JoinIdentity GpuDevice::join_identity() const {
    return {.is_gpu = 1};
}

void GpuDevice::count_communicators(DeviceStatus&) const {}

Result<std::unique_ptr<Join>> GpuDevice::make_device_join(const JoinPlace& place, bool share_process) {
    return Device::make_device_join(place, share_process);
}

}  // namespace kvgrid::worker
