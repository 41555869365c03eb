#include <cuda_runtime_api.h>

#include "kernels/cuda/cuda_error.h"
#include "worker/gpu/gpu_device.h"
#include "worker/gpu/gpu_join.h"

namespace kvgrid::worker {

namespace {

constexpr int kBlocksOfSharers = 2;  // of NCCL's kernels, where ranks share a GPU

}  // namespace

void GpuDevice::prepare_joins() {
    comm::prepare_nccl_environment();
}

std::uint32_t GpuDevice::nccl_version() {
    return static_cast<std::uint32_t>(comm::nccl_version());
}

void GpuDevice::count_communicators(DeviceStatus& status) const {
    if (!nccl_) return;
    status.nccl_communicators = nccl_->communicator_count();
    status.nccl_aborts = nccl_->abort_count();
}

Result<std::unique_ptr<Join>> GpuDevice::make_gathering_join(const JoinPlace& place, bool share_process) {
    kernels::check_cuda(cudaSetDevice(index_), "cudaSetDevice");  // of whichever thread applies operations
    if (!nccl_) nccl_ = std::make_shared<comm::NcclWorld>();
    const comm::NcclWorld::Options options{.blocks_max = sharers_ > 1 ? kBlocksOfSharers : 0,
                                           .share_process = share_process};
    auto gather = nccl_->form_gather(place.collective, options, place.deadline);
    if (!gather) return gather.error();
    return std::unique_ptr<Join>(std::make_unique<GpuJoin>(place, *std::move(gather), stream_, counters_.memory));
}

}  // namespace kvgrid::worker
