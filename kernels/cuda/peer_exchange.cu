#include "kernels/cuda/peer_exchange.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/peer_slots.cuh"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kBlocksMax = 32;  // a few SMs' worth: kernels of other ranks may be on the same GPU

// Calls act(row, dim) for this thread's share of so many rows' pieces.
template <class Act>
__device__ __forceinline__ void for_each_piece(const PeerExchange& work, std::size_t row_count, const Act& act) {
    const std::size_t pieces = work.head_dim / 4, count = row_count * pieces;
    const std::size_t first = blockIdx.x * std::size_t{kThreads} + threadIdx.x;
    for (std::size_t index = first; index < count; index += std::size_t{kThreads} * gridDim.x) {
        act(index / pieces, static_cast<int>(index % pieces) * 4);
    }
}

__device__ PeerPiece own_piece(const PeerExchange& work, std::size_t row, int dim) {
    return {*reinterpret_cast<const float4*>(work.partial + row * work.head_dim + dim), work.lse[row]};
}

__device__ void push_rows(const PeerExchange& work, std::uint32_t epoch, Patience& patience) {
    if (!wait_for_acknowledgement(work, epoch, patience)) return;
    const std::size_t row_count = rows_of_part(work, work.rank / work.sequence_parts);
    const PeerSlot slot(work, epoch, work.rank, row_count);
    for_each_piece(work, row_count, [&](std::size_t row, int dim) {
        slot.bring({row, dim}, own_piece(work, row, dim));
    });
}

__device__ void merge_rows(const PeerExchange& work, std::uint32_t epoch, Patience& patience) {
    for (int part = 0; part < work.rank_count / work.sequence_parts; ++part) {
        for_each_piece(work, rows_of_part(work, part), [&](std::size_t row, int dim) {
            merge_pieces<1>(work, epoch, part, {{row, dim}}, patience, [&](int) { return own_piece(work, row, dim); });
        });
    }
}

__global__ __launch_bounds__(kThreads) void exchange_rows_kernel(const __grid_constant__ PeerExchange work) {
    const std::uint32_t epoch = header_of(work.mailboxes[work.rank])->epoch;
    Patience patience(work);
    if (work.rank == work.root) {
        if (blockIdx.x == 0 && threadIdx.x == 0) acknowledge(work, epoch);
        merge_rows(work, epoch, patience);
    } else {
        push_rows(work, epoch, patience);
    }
    end_exchange(work);
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("exchange_rows: ") + rule);
}

bool is_aligned(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

}  // namespace

void check_exchange(const PeerExchange& work) {
    require(work.rank_count >= 2 && work.rank_count <= static_cast<int>(PeerMailbox::kRanksMax),
            "there must be 2 to 16 ranks");
    require(work.rank >= 0 && work.rank < work.rank_count && work.root >= 0 && work.root < work.rank_count,
            "rank and root must be ranks");
    require(work.sequence_parts >= 1 && work.rank_count % work.sequence_parts == 0,
            "the ranks must be sequence parts of whole head parts");
    require(work.token_count >= 0 && work.head_dim >= 4 && work.head_dim % 4 == 0,
            "head_dim must be a positive multiple of 4");
    require(work.first_heads[0] == 0, "heads begin at 0");
    for (int part = 0; part < work.rank_count / work.sequence_parts; ++part) {
        const int heads = work.first_heads[part + 1] - work.first_heads[part];
        require(heads >= 1, "each head part must have heads");
        require(PeerMailbox::slot_bytes(static_cast<std::size_t>(work.token_count) * heads, work.head_dim) <=
                    PeerMailbox::kSlotBytes,
                "the rows of a rank do not fit into a slot");
    }
    require(is_aligned(work.merged), "merged must be aligned to 16 bytes");
    require(work.mailboxes[work.rank] != nullptr && work.mailboxes[work.root] != nullptr && work.abort != nullptr &&
                work.failed != nullptr,
            "a pointer is missing");
    require(work.rank != work.root || work.merged != nullptr, "the root has no place for the outcome");
}

namespace {

std::size_t row_count_of(const PeerExchange& work) {
    const int part = work.rank / work.sequence_parts;
    const int heads = work.rank == work.root ? work.first_heads[work.rank_count / work.sequence_parts]
                                             : work.first_heads[part + 1] - work.first_heads[part];
    return static_cast<std::size_t>(work.token_count) * heads;
}

}  // namespace

void reset_peer_mailbox(DeviceSpan<std::byte> mailbox) {
    const std::size_t header = std::min(mailbox.size, PeerMailbox::kHeaderBytes);
    check_cuda(cudaMemset(mailbox.data, 0, header), "cudaMemset of a mailbox");
    check_cuda(cudaMemset(mailbox.data + header, 0xff, mailbox.size - header), "cudaMemset of a mailbox's slots");
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void load_peer_exchange() {
    cudaFuncAttributes attributes;
    check_cuda(cudaFuncGetAttributes(&attributes, exchange_rows_kernel), "cudaFuncGetAttributes");
}

void exchange_rows(const PeerExchange& work, Stream stream) {
    check_exchange(work);
    require(is_aligned(work.partial), "partial must be aligned to 16 bytes");
    require(work.partial != nullptr && work.lse != nullptr, "there are no rows");
    const std::size_t threads = row_count_of(work) * (work.head_dim / 4);
    const std::size_t blocks = std::clamp<std::size_t>((threads + kThreads - 1) / kThreads, 1, kBlocksMax);
    exchange_rows_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(work);
    check_launch("exchange_rows_kernel");
}

}  // namespace kvgrid::kernels
