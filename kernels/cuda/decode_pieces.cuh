#pragma once

#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// Nothing was seen yet: below every logit, and finite, so that differences of it are numbers.
inline constexpr float kNoMaximum = -1e30f;

// Four dims of one row: the outcome so far, not divided by the sum.
struct RowPiece {
    float4 outcome;
    float origin, sum;
};

// Of a row that saw nothing.
__device__ __forceinline__ RowPiece no_piece() {
    return {{0, 0, 0, 0}, kNoMaximum, 0};
}

// The same dims of the same row, seen by several. A piece that saw nothing weighs nothing, even if its origin means nothing.
template <int kCount>
__device__ __forceinline__ RowPiece merge(const RowPiece (&pieces)[kCount]) {
    RowPiece merged = no_piece();
#pragma unroll
    for (const RowPiece& piece : pieces) merged.origin = fmaxf(merged.origin, piece.origin);
#pragma unroll
    for (const RowPiece& piece : pieces) {
        const float factor = piece.sum == 0 ? 0 : exp2_fast(piece.origin - merged.origin);
        merged.outcome.x += factor * piece.outcome.x;
        merged.outcome.y += factor * piece.outcome.y;
        merged.outcome.z += factor * piece.outcome.z;
        merged.outcome.w += factor * piece.outcome.w;
        merged.sum += factor * piece.sum;
    }
    return merged;
}

// What the warps of a block have summed of a unit, each of its own slices, in shared memory.
template <class Variant>
struct WarpOutcomes {
    struct Sums {
        float origin[Variant::kWarps][Variant::kUnitRows];
        float sum[Variant::kWarps][Variant::kUnitRows];
    };
    float* outcomes;  // [kWarps], kWarpOutcomeFloats apart: [kUnitRows][kOutcomeStride]
    Sums& sums;

    __device__ __forceinline__ float* of_warp(int warp) const { return outcomes + warp * Variant::kWarpOutcomeFloats; }

    __device__ __forceinline__ RowPiece merged(int row, int dim) const {
        RowPiece pieces[Variant::kWarps];
#pragma unroll
        for (int warp = 0; warp < Variant::kWarps; ++warp) {
            const float* const from = of_warp(warp) + row * Variant::kOutcomeStride + dim;
            pieces[warp] = {*reinterpret_cast<const float4*>(from), sums.origin[warp][row], sums.sum[warp][row]};
        }
        return merge(pieces);
    }
};

// Calls act(row, dim) for this thread's share of the unit's pieces; the share is the same for every call.
template <class Variant, class Act>
__device__ __forceinline__ void for_each_piece(const DecodeUnit& unit, const Act& act) {
    constexpr int kPiecesPerRow = Variant::kHeadDim / 4;
    for (int piece = threadIdx.x; piece < unit.row_count * kPiecesPerRow; piece += Variant::kThreads) {
        act(piece / kPiecesPerRow, piece % kPiecesPerRow * 4);
    }
}

}  // namespace kvgrid::kernels
