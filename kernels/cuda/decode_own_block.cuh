#pragma once

#include "kernels/cuda/decode_finish.cuh"
#include "kernels/cuda/decode_walk.cuh"

namespace kvgrid::kernels {

// What the blocks of a cluster bring each other of a unit, when each has its part of it. Every block has a share of the pieces to finish:
// consecutive ones, in its own shared memory once for each block of the cluster. Bytes are counted on a barrier of the share's owner.
//
//   [part][piece of the share] f32 x 4 outcome, then [part][piece of the share] {origin, sum}
template <class Variant>
class ClusterInbox {
  public:
    // By all threads; open() by one of them.
    __device__ ClusterInbox(std::byte* memory, std::uint64_t* full)
        : outcomes_(shared_address(memory)),
          full_(shared_address(full)),
          parts_(cluster_size()),
          rank_(cluster_rank()) {}

    __device__ __forceinline__ void open() const {
        barrier_init(full_, 1);
        barrier_init_fence();
    }
    // By the same thread, when the pieces of the unit are known.
    __device__ __forceinline__ void expect(int piece_count) const {
        barrier_arrive_expect(full_, parts_ * own_count(piece_count) * kInboxPieceBytes);
    }
    // Only after all blocks of the cluster have opened theirs.
    __device__ __forceinline__ void bring(int piece, int piece_count, const RowPiece& words) const {
        const int share = share_of(piece_count), owner = piece / share;
        const int at = rank_ * share + piece % share;
        const std::uint32_t barrier = address_in_block(full_, owner);
        store_in_block(address_in_block(outcomes_ + at * 16, owner), words.outcome, barrier);
        store_in_block(address_in_block(sums_at(share) + at * 8, owner), float2{words.origin, words.sum}, barrier);
    }
    __device__ __forceinline__ void wait() const { barrier_wait(full_, 0); }

    __device__ __forceinline__ bool is_alone() const { return parts_ == 1; }
    // Of this block's share.
    __device__ __forceinline__ int own_first(int piece_count) const { return rank_ * share_of(piece_count); }
    __device__ __forceinline__ int own_count(int piece_count) const {
        const int left = piece_count - own_first(piece_count);
        return max(0, min(left, share_of(piece_count)));
    }
    __device__ __forceinline__ RowPiece merged(int own, int piece_count) const {
        const int share = share_of(piece_count);
        RowPiece pieces[UnitCut::kPartsMax];
#pragma unroll
        for (int part = 0; part < UnitCut::kPartsMax; ++part) {
            pieces[part] = part < parts_ ? load(part * share + own, share) : no_piece();
        }
        return merge(pieces);
    }

  private:
    __device__ __forceinline__ int share_of(int piece_count) const {
        return (piece_count + parts_ - 1) / parts_;
    }
    __device__ __forceinline__ std::uint32_t sums_at(int share) const {
        return outcomes_ + parts_ * share * 16;
    }
    __device__ __forceinline__ RowPiece load(int at, int share) const {
        RowPiece piece;
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(piece.outcome.x), "=f"(piece.outcome.y), "=f"(piece.outcome.z), "=f"(piece.outcome.w)
                     : "r"(outcomes_ + at * 16)
                     : "memory");
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                     : "=f"(piece.origin), "=f"(piece.sum)
                     : "r"(sums_at(share) + at * 8)
                     : "memory");
        return piece;
    }

    std::uint32_t outcomes_, full_;
    int parts_, rank_;
};

template <class Variant>
struct OwnBlockShared {
    typename SliceRing<Variant>::Shared rings[Variant::kWarps];
    typename WarpOutcomes<Variant>::Sums warp_sums;
    std::uint64_t inbox_full;
    JoinState join_state;
};

template <class Variant>
__device__ __forceinline__ void decode_unit_of_block(const DecodeArguments& arguments, std::byte* memory,
                                                     OwnBlockShared<Variant>& shared) {
    auto& [rings, warp_sums, inbox_full, join_state] = shared;
    const WarpOutcomes<Variant> outcomes{reinterpret_cast<float*>(memory + Variant::kOutcomesOffset), warp_sums};
    const ClusterInbox<Variant> inbox(memory + Variant::kInboxOffset, &inbox_full);
    if constexpr (Variant::kIsInCluster) {
        if (threadIdx.x == 0) inbox.open();
        __syncwarp();
        cluster_arrive();
    }
    allow_next_kernel();
    wait_for_previous_kernel();

    const Segments segments(arguments.blocks[blockIdx.x], arguments.units);
    const DecodeUnit& unit = segments.unit();
    if (unit.row_count == 0) {  // as all blocks of the cluster
        if (threadIdx.x == 0) FinishRows<Variant>::begin(arguments, join_state);
        return;
    }
    const int piece_count = unit.row_count * Variant::kHeadDim / 4;
    if (Variant::kIsInCluster && threadIdx.x == 0) inbox.expect(piece_count);
    const int warp = threadIdx.x / 32;
    SliceRing<Variant> ring(arguments, segments, memory + warp * Variant::kWarpBytes, rings[warp]);
    for (int stage = 0; stage < Variant::kStages; ++stage) ring.fill(stage);
    if (threadIdx.x == 0) FinishRows<Variant>::begin(arguments, join_state);
    UnitSums<Variant> sums;
    sums.begin(arguments, unit, ring.queries(segments), memory + Variant::kQueriesOffset);
    SliceWalk walk;
    walk.add_slices(arguments, segments, ring, sums);
    sums.finish_sums();
    sums.store(outcomes.of_warp(warp), warp_sums.origin[warp], warp_sums.sum[warp]);
    __syncthreads();

    const FinishRows<Variant> finish{arguments.outputs, join_state};
    const auto finish_all = [&] {
        for_each_piece<Variant>(unit, [&](int row, int dim) {
            finish.take(row_of_unit(arguments, unit, row), dim, outcomes.merged(row, dim));
        });
    };
    if constexpr (Variant::kIsInCluster) {
        cluster_wait();  // until all inboxes are open
        if (inbox.is_alone()) return finish_all();
        for_each_piece<Variant>(unit, [&](int row, int dim) {
            inbox.bring((row * Variant::kHeadDim + dim) / 4, piece_count, outcomes.merged(row, dim));
        });
        inbox.wait();
        for (int own = threadIdx.x; own < inbox.own_count(piece_count); own += Variant::kThreads) {
            const int piece = inbox.own_first(piece_count) + own;
            const int row = piece / (Variant::kHeadDim / 4), dim = piece % (Variant::kHeadDim / 4) * 4;
            finish.take(row_of_unit(arguments, unit, row), dim, inbox.merged(own, piece_count));
        }
    } else {
        finish_all();
    }
}

// A block that has one unit, or a part of it beside the other blocks of its cluster: no partial passes through global memory.
template <class Variant>
__global__ __launch_bounds__(Variant::kThreads,
                             1) void decode_own_block(const __grid_constant__ DecodeArguments arguments) {
    extern __shared__ __align__(1024) std::byte memory[];
    __shared__ OwnBlockShared<Variant> shared;
    decode_unit_of_block(arguments, memory, shared);
    FinishRows<Variant>::end(arguments);
}

}  // namespace kvgrid::kernels
