// Of a build without NCCL: large outputs are joined over the hosts.
#include "worker/gpu/gpu_device.h"

namespace kvgrid::worker {

void GpuDevice::prepare_joins() {}

std::uint32_t GpuDevice::nccl_version() {
    return 0;
}

void GpuDevice::count_communicators(DeviceStatus&) const {}

Result<std::unique_ptr<Join>> GpuDevice::make_gathering_join(const JoinPlace& place, bool share_process) {
    return Device::make_gathering_join(place, share_process);
}

}  // namespace kvgrid::worker
