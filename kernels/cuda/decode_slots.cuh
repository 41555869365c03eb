#pragma once

#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/decode_pieces.cuh"
#include "kernels/cuda/flagged_words.cuh"

namespace kvgrid::kernels {

// Partial outcomes in global memory, one slot for each block:
//
//   [kUnitRows][kHeadDim] f32 outcome, then {origin, sum} f32 for every 32 dims of a row
//
// Words carry their own flags, and the reader empties a slot for the next launch. Eight neighbouring lanes share the sums of their 32 dims;
// what one SM reads in one go is what the merge costs.
template <class Variant>
class Slot {
  public:
    static constexpr int kSumsDims = kDecodeSumsDims;
    static constexpr int kFloats = decode_slot_floats(Variant::kUnitRows, Variant::kHeadDim);

    __device__ Slot(float* slots, int index) : base_(slots + static_cast<std::size_t>(index) * kFloats) {}

    // By the thread that will read it again.
    __device__ __forceinline__ void keep(int row, int dim, const RowPiece& piece) const {
        *outcome(row, dim) = piece.outcome;
        if (dim % kSumsDims == 0) *sums(row, dim) = {piece.origin, piece.sum};
    }
    __device__ __forceinline__ RowPiece kept(int row, int dim) const {
        const float2 both = *sums(row, dim);
        return {*outcome(row, dim), both.x, both.y};
    }

    __device__ __forceinline__ void hand_over(int row, int dim, const RowPiece& piece) const {
        hand_over_words(outcome(row, dim), piece.outcome);
        if (dim % kSumsDims != 0) return;
        asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1, %2};" ::"l"(sums(row, dim)), "f"(filled(piece.origin)),
                     "f"(filled(piece.sum))
                     : "memory");
    }

    // What is there now; is_whole says whether that is all.
    __device__ __forceinline__ RowPiece look(int row, int dim) const {
        RowPiece piece;
        piece.outcome = look_at_words(outcome(row, dim));
        asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
                     : "=f"(piece.origin), "=f"(piece.sum)
                     : "l"(sums(row, dim))
                     : "memory");
        return piece;
    }
    static __device__ __forceinline__ RowPiece empty_piece() {
        const float nothing = __uint_as_float(kEmptyWord);
        return {{nothing, nothing, nothing, nothing}, nothing, nothing};
    }
    static __device__ __forceinline__ bool is_whole(const RowPiece& piece) {
        return kernels::is_whole(piece.outcome) && !is_empty(piece.origin) && !is_empty(piece.sum);
    }

    // After this lane and those beside it, which share the sums, have read.
    __device__ __forceinline__ void empty(int row, int dim) const {
        __syncwarp(0xffu << (threadIdx.x % 32 & 24));
        keep(row, dim, empty_piece());
    }

  private:
    __device__ __forceinline__ float4* outcome(int row, int dim) const {
        return reinterpret_cast<float4*>(base_ + row * Variant::kHeadDim + dim);
    }
    __device__ __forceinline__ float2* sums(int row, int dim) const {
        return reinterpret_cast<float2*>(base_ + Variant::kUnitRows * Variant::kHeadDim) +
               (row * Variant::kHeadDim + dim) / kSumsDims;
    }

    float* base_;
};

}  // namespace kvgrid::kernels
