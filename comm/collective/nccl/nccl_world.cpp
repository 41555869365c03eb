#include "comm/collective/nccl/nccl_world.h"

#include <cstdlib>
#include <span>
#include <string>

#include "comm/collective/nccl/nccl_collective.h"
#include "comm/collective/nccl/nccl_gather.h"
#include "comm/collective/nccl/nccl_version.h"

namespace kvgrid::comm {

namespace {

std::span<std::byte> bytes_of(ncclUniqueId& id) {
    return std::as_writable_bytes(std::span(&id, 1));
}

Meeting meeting_over(Collective& control, const NcclWorld::Options& options) {
    return Meeting(options.share_process ? &control : nullptr);
}

}  // namespace

Result<std::unique_ptr<NcclCommunicator>> NcclWorld::form_communicator(Collective& control, const Options& options,
                                                                       Deadline deadline) {
    NcclCommunicator::Membership membership{{}, control.rank(), control.size(), control.generation()};
    ncclResult_t made = ncclSuccess;
    if (control.rank() == 0) made = ncclGetUniqueId(&membership.id);
    // All ranks learn whether there is an id, so that none waits for the others.
    std::int64_t refused[] = {made == ncclSuccess ? 0 : made};
    if (Status told = control.all_reduce(refused, ReduceOp::max, deadline); !told) return told.error();
    if (refused[0] != 0) {
        return {Errc::unavailable,
                std::string("ncclGetUniqueId of rank 0: ") + ncclGetErrorString(static_cast<ncclResult_t>(refused[0]))};
    }
    if (Status told = control.broadcast(bytes_of(membership.id), 0, deadline); !told) return told.error();
    return NcclCommunicator::form(membership, options.blocks_max, {alive_, aborts_}, deadline);
}

Result<std::unique_ptr<Collective>> NcclWorld::form(Collective& control, const Options& options, Deadline deadline) {
    auto formed = form_communicator(control, options, deadline);
    if (!formed) return formed.error();
    const Meeting meeting = meeting_over(control, options);
    auto made = std::make_unique<NcclCollective>(*std::move(formed), meeting, control.rank(), control.size(),
                                                 control.generation());
    if (Status met = meeting.meet(deadline); !met) return met.error();
    return std::unique_ptr<Collective>(std::move(made));
}

Result<std::unique_ptr<DeviceGather>> NcclWorld::form_gather(Collective& control, const Options& options,
                                                             Deadline deadline) {
    auto formed = form_communicator(control, options, deadline);
    if (!formed) return formed.error();
    return std::unique_ptr<DeviceGather>(
        std::make_unique<NcclGather>(*std::move(formed), meeting_over(control, options), control));
}

void prepare_nccl_environment() {
    constexpr int kKeep = 0;
    setenv("NCCL_NVLS_ENABLE", "0", kKeep);
    setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", kKeep);
}

int nccl_version() {
    int version = 0;
    return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}

bool nccl_shares_gpus() {
    return nccl_version() >= kNcclSharesGpus;
}

}  // namespace kvgrid::comm
