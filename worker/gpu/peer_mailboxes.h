#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "worker/device.h"
#include "worker/gpu/memory.h"

namespace kvgrid::worker {

// A mailbox in the GPU's memory of each rank (kernels/cuda/peer_exchange.h), and the way to those that this rank's kernels write into: by peer
// access within a process, by CUDA IPC between processes of a host.
//
//   Teardown  the other ranks' mailboxes are let go before the own one is freed. Kernels that use any have ended.
class PeerMailboxes {
  public:
    // Called by all ranks of one host, whose current GPU is their own. `unavailable` where the driver refuses any step; the other ranks have to be
    // told. Errors of the collective are as the collective's.
    static Result<std::unique_ptr<PeerMailboxes>> form(const JoinPlace& place, GpuMemoryCounts& counts);
    ~PeerMailboxes();

    // By rank; null where this rank has nothing to write.
    std::span<std::byte* const> all() const { return mailboxes_; }

  private:
    struct Address;

    PeerMailboxes(const JoinPlace& place, GpuMemoryCounts& counts);
    Address own_address();
    void open(const Address& theirs, int rank);

    const int rank_, root_;
    GpuBuffer own_;
    std::vector<std::byte*> mailboxes_;
    std::vector<std::byte*> opened_;  // of other processes
};

}  // namespace kvgrid::worker
