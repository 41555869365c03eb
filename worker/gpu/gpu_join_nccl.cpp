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

bool GpuDevice::can_gather() {
    return true;
}

bool GpuDevice::can_gather_shared() {
    return comm::nccl_shares_gpus();
}

Result<std::unique_ptr<Join>> GpuDevice::make_gathering_join(const JoinPlace& place, bool share_process) {
    kernels::check_cuda(cudaSetDevice(index_), "cudaSetDevice");  // of whichever thread applies operations
    comm::NcclWorld nccl({.blocks_max = sharers_ > 1 ? kBlocksOfSharers : 0, .share_process = share_process});
    auto gather = nccl.form_gather(place.collective, place.deadline);
    if (!gather) return gather.error();
    return std::unique_ptr<Join>(std::make_unique<GpuJoin>(place, *std::move(gather), stream_, counters_.memory));
}

}  // namespace kvgrid::worker
