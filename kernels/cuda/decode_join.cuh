#pragma once

#include "kernels/cuda/peer_slots.cuh"

namespace kvgrid::kernels {

// The join with other ranks' rows in the tail of a decode kernel: instead of writing its rows, a rank pushes them into the root's mailbox as it
// finishes them, and the root merges each of its own with what comes for it.
//
//   Use   begin_join by one thread of each block, before a barrier -> join_piece for each piece of each row, once in the whole kernel -> end_join by
//         all threads of each block. Nothing of it where work.rank_count is 0.
struct JoinState {
    std::uint32_t epoch;
    bool may_push;
};

__device__ __forceinline__ void begin_join(const PeerExchange& work, JoinState& state) {
    if (work.rank_count == 0) return;
    state.epoch = header_of(work.mailboxes[work.rank])->epoch;
    Patience patience(work);
    state.may_push = work.rank != work.root && wait_for_acknowledgement(work, state.epoch, patience);
    if (work.rank == work.root && blockIdx.x == 0) acknowledge(work, state.epoch);
}

__device__ __forceinline__ void join_piece(const PeerExchange& work, const JoinState& state, std::size_t row, int dim,
                                           const PeerPiece& own) {
    const int part = work.rank / work.sequence_parts;
    if (work.rank == work.root) {
        Patience patience(work);
        merge_pieces<1>(work, state.epoch, part, {{row, dim}}, patience, [&](int) { return own; });
    } else if (state.may_push) {
        PeerSlot(work, state.epoch, work.rank, rows_of_part(work, part)).bring({row, dim}, own);
    }
}

// The root takes the rows of other head parts here, which are none of its kernel's: in the blocks that start last, since a block that waits for
// all of another rank's kernel keeps later ones from their SM.
//
//   kAtOnce   pieces that a thread waits for at a time
template <int kAtOnce>
__device__ __forceinline__ void end_join(const PeerExchange& work) {
    if (work.rank_count == 0) return;
    if (work.rank == work.root) {
        const std::uint32_t epoch = header_of(work.mailboxes[work.rank])->epoch;
        Patience patience(work);
        const int own_part = work.rank / work.sequence_parts;
        const std::size_t pieces = work.head_dim / 4;
        constexpr unsigned kBlocks = 32;
        const unsigned first_block = gridDim.x > kBlocks ? gridDim.x - kBlocks : 0;
        if (blockIdx.x < first_block) return end_exchange(work);
        const std::size_t first = (blockIdx.x - first_block) * blockDim.x + threadIdx.x;
        const std::size_t stride = (gridDim.x - first_block) * blockDim.x;
        for (int part = 0; part < work.rank_count / work.sequence_parts; ++part) {
            if (part == own_part) continue;
            const std::size_t count = rows_of_part(work, part) * pieces;
            for (std::size_t index = first; index < count; index += kAtOnce * stride) {
                PeerPlace places[kAtOnce];
#pragma unroll
                for (int i = 0; i < kAtOnce; ++i) {
                    const std::size_t at = index + i * stride;
                    places[i] = {at / pieces, static_cast<int>(at % pieces) * 4, at < count};
                }
                merge_pieces(work, epoch, part, places, patience, [](int) { return PeerPiece{}; });
            }
        }
    }
    end_exchange(work);
}

}  // namespace kvgrid::kernels
