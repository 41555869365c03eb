#pragma once

// For the .cpp files of the NCCL back end only.

#include "comm/collective/checked_collective.h"
#include "comm/collective/meeting.h"
#include "comm/collective/nccl/nccl_communicator.h"

namespace kvgrid::comm {

// A collective of bytes in host memory: they pass through pinned memory and the GPU's, so that a caller's own is never given to NCCL.
class NcclCollective final : public CheckedCollective {
  public:
    NcclCollective(std::unique_ptr<NcclCommunicator> communicator, const Meeting& meeting, int rank, int size,
                   Generation generation);
    ~NcclCollective() override;

  private:
    // [pinned on the host | on the GPU], grown to the largest call.
    struct Staging {
        std::byte* host = nullptr;
        std::byte* device = nullptr;
        std::size_t size = 0;

        ~Staging();
        void grow(std::size_t bytes);
    };

    Status run_gather(std::span<const std::byte> mine, std::span<std::byte> all, int root, Deadline deadline) override;
    Status run_broadcast(std::span<std::byte> data, int root, Deadline deadline) override;
    Status run_all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) override;
    Status run_barrier(Deadline deadline) override;

    Status reserve(std::size_t mine, std::size_t all, Deadline deadline);
    void send_to_device(const Staging& staging, std::size_t bytes);
    ncclResult_t begin_gather(std::size_t bytes, int root);
    Status finish(ncclResult_t begun, const char* call, std::size_t bytes, Deadline deadline);

    std::unique_ptr<NcclCommunicator> communicator_;
    const Meeting meeting_;
    cudaStream_t stream_ = nullptr;
    Staging mine_, all_;
};

}  // namespace kvgrid::comm
