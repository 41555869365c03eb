// Of a build without NCCL: GPUs join over their hosts.
#include "worker/gpu/gpu_device.h"

namespace kvgrid::worker {

void GpuDevice::prepare_joins() {}

Device::JoinIdentity GpuDevice::join_identity() const {
    return {};
}

Result<std::unique_ptr<Join>> GpuDevice::make_device_join(const JoinPlace& place, bool share_process) {
    return Device::make_device_join(place, share_process);
}

}  // namespace kvgrid::worker
