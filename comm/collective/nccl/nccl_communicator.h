#pragma once

// For the .cpp files of the NCCL back end only.

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "core/clock.h"
#include "core/ids.h"
#include "core/result.h"

namespace kvgrid::comm {

// One rank's communicator, which does not block: whatever NCCL begins is polled until the deadline, and aborted if it has not ended by then.
// An abort also ends the communicator's kernels, so that the stream they are in comes free.
class NcclCommunicator {
  public:
    struct Membership {
        ncclUniqueId id;
        int rank, size;
        Generation generation;
    };
    struct Counters {
        std::shared_ptr<std::atomic<int>> alive;
        std::shared_ptr<std::atomic<std::uint64_t>> aborts;
    };
    using IsCancelled = std::function<bool()>;

    // On the rank's GPU. deadline_exceeded where not all ranks came, unavailable where NCCL refuses.
    static Result<std::unique_ptr<NcclCommunicator>> form(const Membership& membership, int blocks_max,
                                                          Counters counters, Deadline deadline);
    ~NcclCommunicator();  // takes some 100 ms at most; a communicator that does not end by then is aborted

    ncclComm_t get() const { return comm_; }

    // Begins a gather of blocks in GPU memory; `root`'s own lies in `all` already. mine: null at the root, all: null elsewhere.
    ncclResult_t begin_gather(const std::byte* mine, std::byte* all, std::size_t bytes, int root, cudaStream_t stream);

    // What a call of NCCL returned, followed until it is more than begun.
    Status settled(ncclResult_t begun, const char* call, Deadline deadline, const IsCancelled& is_cancelled);
    // Until all work queued on the stream is done.
    Status wait(cudaStream_t stream, Deadline deadline, const IsCancelled& is_cancelled);
    // After a failed call: nothing can be done with it any more.
    void abort();

  private:
    NcclCommunicator(int size, Counters counters);
    Status trouble(ncclResult_t result, const char* call) const;

    const int size_;
    const Counters counters_;
    ncclComm_t comm_ = nullptr;
};

}  // namespace kvgrid::comm
