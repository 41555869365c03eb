#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstring>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/peer_exchange.h"
#include "worker/gpu/gpu_device.h"
#include "worker/gpu/peer_join.h"

namespace kvgrid::worker {

JoinIdentity GpuDevice::join_identity() const {
    cudaDeviceProp properties{};
    kernels::check_cuda(cudaGetDeviceProperties(&properties, index_), "cudaGetDeviceProperties");
    JoinIdentity identity{.host = static_cast<std::uint64_t>(gethostid()),
                          .device = 0,
                          .process = static_cast<std::uint64_t>(getpid()),
                          .is_gpu = 1,
                          .nccl_version = nccl_version()};
    static_assert(sizeof identity.device <= sizeof properties.uuid.bytes);
    std::memcpy(&identity.device, properties.uuid.bytes, sizeof identity.device);
    return identity;
}

Result<std::unique_ptr<Join>> GpuDevice::make_pushing_join(const JoinPlace& place, bool share_process) {
    kernels::check_cuda(cudaSetDevice(index_), "cudaSetDevice");  // of whichever thread applies operations
    auto mailboxes = PeerMailboxes::form(place, counters_.memory);
    if (!mailboxes) return mailboxes.error();
    return std::unique_ptr<Join>(
        std::make_unique<PeerJoin>(place, *std::move(mailboxes), share_process, stream_, counters_.memory));
}

}  // namespace kvgrid::worker
