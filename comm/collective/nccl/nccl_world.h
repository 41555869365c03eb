#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/collective/collective.h"

struct CUstream_st;

namespace kvgrid::comm {

class NcclCommunicator;

// Gathers blocks that lie in the ranks' GPUs at one of them. Queued on a stream, as kernels are.
//
//   Threads  one. The rank's GPU is the current one.
//   Errors   as a Collective's: after the first one nothing works any more. Work queued on the stream until then has ended, or was ended.
class DeviceGather {
  public:
    using Stream = CUstream_st*;

    virtual ~DeviceGather() = default;

    // all: [size][bytes] at `root`, where its own block lies already; elsewhere null. mine: null at `root`. Memory of the GPU, until wait() returns.
    virtual Status queue(const std::byte* mine, std::byte* all, std::size_t bytes, int root, Stream stream,
                         Deadline deadline) = 0;
    // Until all that is queued on the stream is done. peer_lost as soon as the collective that this was formed with is cancelled.
    virtual Status wait(Stream stream, Deadline deadline) = 0;
};

// Collectives over NCCL for ranks that each have a GPU, formed with the help of collectives that they have already: what a process has of NCCL.
//
//   Settings   before the first call of NCCL in a process: prepare_nccl_environment()
//   Threads    all calls from any; each collective on one thread of its own, whose current GPU is the rank's
//   One GPU    for several ranks needs NCCL 2.30 (nccl_shares_gpus()); as threads of one process, else the GPU takes turns between them.
//   Source     NCCL's user guide, "Fault Tolerance": communicators that do not block, polled, and aborted where they are stuck.
class NcclWorld {
  public:
    struct Options {
        int blocks_max = 0;  // that a collective's kernel may have; 0: NCCL's choice. Small where ranks share a GPU
        // Ranks are threads of one process. What takes memory or loads a kernel waits there for all kernels of the GPU, those that wait for
        // other ranks among them: so ranks meet over `control` before and after they queue any.
        bool share_process = false;
    };

    // The ranks of `control`, under its generation; called by all of them. NCCL's id travels over `control`, which outlives what is formed. A
    // rank that does not come costs the others the deadline, and what was begun is given up. `unavailable` where NCCL refuses, with its reason.
    Result<std::unique_ptr<Collective>> form(Collective& control, const Options& options, Deadline deadline);
    Result<std::unique_ptr<DeviceGather>> form_gather(Collective& control, const Options& options, Deadline deadline);

    // Of communicators that are there, and of all that had to be aborted.
    int communicator_count() const { return *alive_; }
    std::uint64_t abort_count() const { return *aborts_; }

  private:
    Result<std::unique_ptr<NcclCommunicator>> form_communicator(Collective& control, const Options& options,
                                                                Deadline deadline);

    const std::shared_ptr<std::atomic<int>> alive_ = std::make_shared<std::atomic<int>>(0);
    const std::shared_ptr<std::atomic<std::uint64_t>> aborts_ = std::make_shared<std::atomic<std::uint64_t>>(0);
};

// NVLink multicast off, and several ranks on one GPU allowed, unless the environment says otherwise. Before other threads are there.
void prepare_nccl_environment();

int nccl_version();  // 22809 is 2.28.9; 0: NCCL does not say
bool nccl_shares_gpus();

}  // namespace kvgrid::comm
