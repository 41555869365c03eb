#include "worker/gpu/peer_mailboxes.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <utility>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/peer_exchange.h"

namespace kvgrid::worker {

using kernels::check_cuda;
using kernels::PeerMailbox;

// What a rank tells the others of its mailbox.
struct PeerMailboxes::Address {
    int is_there;
    int process;
    int device;  // as its process counts
    std::byte* data;
    cudaIpcMemHandle_t handle;
};

namespace {

void enable_access_to(int device) {
    int current = 0;
    check_cuda(cudaGetDevice(&current), "cudaGetDevice");
    if (device == current) return;
    const cudaError_t enabled = cudaDeviceEnablePeerAccess(device, 0);
    if (enabled == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
        return;
    }
    check_cuda(enabled, "cudaDeviceEnablePeerAccess");
}

}  // namespace

PeerMailboxes::PeerMailboxes(const JoinPlace& place, GpuMemoryCounts& counts)
    : rank_(place.collective.rank()),
      root_(place.root),
      own_(counts, GpuMemoryKind::scratch),
      mailboxes_(place.collective.size()) {}

PeerMailboxes::~PeerMailboxes() {
    for (std::byte* const mailbox : opened_) cudaIpcCloseMemHandle(mailbox);
}

Result<std::unique_ptr<PeerMailboxes>> PeerMailboxes::form(const JoinPlace& place, GpuMemoryCounts& counts) {
    std::unique_ptr<PeerMailboxes> made(new PeerMailboxes(place, counts));
    Address mine{};
    std::string trouble;
    try {
        mine = made->own_address();
    } catch (const kernels::CudaError& error) {
        cudaGetLastError();
        trouble = error.what();
    }
    std::vector<Address> all(made->mailboxes_.size());
    if (Status told = place.collective.all_gather(std::as_bytes(std::span(&mine, 1)),
                                                  std::as_writable_bytes(std::span(all)), place.deadline);
        !told) {
        return told.error();
    }
    if (!trouble.empty()) return {Errc::unavailable, trouble};
    try {
        for (int rank = 0; rank < static_cast<int>(all.size()); ++rank) {
            if (!all[rank].is_there) return {Errc::unavailable, "a rank has no mailbox"};
            if (rank == made->rank_ || rank == made->root_ || made->rank_ == made->root_) made->open(all[rank], rank);
        }
    } catch (const kernels::CudaError& error) {
        cudaGetLastError();
        return {Errc::unavailable, error.what()};
    }
    return made;
}

PeerMailboxes::Address PeerMailboxes::own_address() {
    kernels::load_peer_exchange();
    own_.grow(PeerMailbox::bytes(static_cast<int>(mailboxes_.size()), rank_ == root_));
    kernels::reset_peer_mailbox(own_.span<std::byte>(0, own_.size()));
    Address address{.is_there = 1, .process = getpid(), .device = 0, .data = own_.data(), .handle = {}};
    check_cuda(cudaGetDevice(&address.device), "cudaGetDevice");
    check_cuda(cudaIpcGetMemHandle(&address.handle, own_.data()), "cudaIpcGetMemHandle");
    return address;
}

void PeerMailboxes::open(const Address& theirs, int rank) {
    if (theirs.process == getpid()) {
        enable_access_to(theirs.device);
        mailboxes_[rank] = theirs.data;
        return;
    }
    void* mapped = nullptr;
    check_cuda(cudaIpcOpenMemHandle(&mapped, theirs.handle, cudaIpcMemLazyEnablePeerAccess), "cudaIpcOpenMemHandle");
    mailboxes_[rank] = static_cast<std::byte*>(mapped);
    opened_.push_back(mailboxes_[rank]);
}

}  // namespace kvgrid::worker
