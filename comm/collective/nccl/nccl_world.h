#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/collective/collective.h"

namespace kvgrid::comm {

// Collectives over NCCL for ranks that each have a GPU, formed with the help of collectives that they have already: what a process has of NCCL.
//
//   Settings   before the first call of NCCL in a process: prepare_nccl_environment()
//   Threads    form() from any; each collective on one thread of its own, whose current GPU is the rank's. The world outlives them.
//   One GPU    for several ranks needs NCCL 2.30 (nccl_shares_gpus()); as threads of one process, else the GPU takes turns between them.
//   Source     NCCL's user guide, "Fault Tolerance": communicators that do not block, polled, and aborted where they are stuck.
class NcclWorld {
  public:
    struct Options {
        int blocks_max = 0;  // that a collective's kernel may have; 0: NCCL's choice. Small where ranks share a GPU
    };
    NcclWorld() : NcclWorld(Options{}) {}
    explicit NcclWorld(const Options& options);

    // The ranks of `control`, under its generation; called by all of them. NCCL's id travels over `control`. A rank that does not come costs the
    // others the deadline, and what was begun is given up. `unavailable` where NCCL refuses, with its reason.
    Result<std::unique_ptr<Collective>> form(Collective& control, Deadline deadline);

    // Of communicators that are there, and of those that had to be aborted.
    int communicator_count() const { return *alive_; }
    std::uint64_t abort_count() const { return *aborts_; }

  private:
    const Options options_;
    const std::shared_ptr<std::atomic<int>> alive_ = std::make_shared<std::atomic<int>>(0);
    const std::shared_ptr<std::atomic<std::uint64_t>> aborts_ = std::make_shared<std::atomic<std::uint64_t>>(0);
};

// NVLink multicast off, and several ranks on one GPU allowed, unless the environment says otherwise. Before other threads are there.
void prepare_nccl_environment();

int nccl_version();  // 23003 is 2.30.3
bool nccl_shares_gpus();

}  // namespace kvgrid::comm
