#pragma once

#include <math_constants.h>

#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// Four dims of one row: the outcome so far, not divided by the sum.
struct RowPiece {
    float4 outcome;
    float origin, sum;
};

// 2^(origin - of) scaled sums of two pieces. A piece that saw nothing weighs nothing, even if its origin means nothing.
__device__ __forceinline__ RowPiece merge(const RowPiece& a, const RowPiece& b) {
    const float origin = fmaxf(a.origin, b.origin);
    const float of_a = a.sum == 0 ? 0 : exp2_fast(a.origin - origin);
    const float of_b = b.sum == 0 ? 0 : exp2_fast(b.origin - origin);
    return {{a.outcome.x * of_a + b.outcome.x * of_b, a.outcome.y * of_a + b.outcome.y * of_b,
             a.outcome.z * of_a + b.outcome.z * of_b, a.outcome.w * of_a + b.outcome.w * of_b},
            origin,
            a.sum * of_a + b.sum * of_b};
}

// Partial outcomes in global memory, one slot for each block:
//
//   [kUnitRows][kHeadDim] f32 outcome, then [kUnitRows][2] origin and sum
//
// A slot carries its own flags: every word that has not been written is kEmpty, which no arithmetic yields, so that a reader takes each
// word as soon as it is there: no fence, no counter, no second kernel. The reader empties the slot again for the next launch.
template <class Variant>
class Slot {
  public:
    static constexpr std::uint32_t kEmpty = 0xffffffff;
    static constexpr int kFloats = Variant::kUnitRows * (Variant::kHeadDim + 2);

    __device__ Slot(float* slots, int index) : base_(slots + static_cast<std::size_t>(index) * kFloats) {}

    // By the thread that will read it again.
    __device__ __forceinline__ void keep(int row, int dim, const RowPiece& piece) const {
        *outcome(row, dim) = piece.outcome;
        if (dim == 0) *sums(row) = {piece.origin, piece.sum};
    }
    __device__ __forceinline__ RowPiece kept(int row, int dim) const {
        const float2 both = *sums(row);
        return {*outcome(row, dim), both.x, both.y};
    }

    __device__ __forceinline__ void hand_over(int row, int dim, const RowPiece& piece) const {
        const float4& from = piece.outcome;
        asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(outcome(row, dim)),
                     "f"(filled(from.x)), "f"(filled(from.y)), "f"(filled(from.z)), "f"(filled(from.w))
                     : "memory");
        if (dim != 0) return;
        asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1, %2};" ::"l"(sums(row)), "f"(filled(piece.origin)),
                     "f"(filled(piece.sum))
                     : "memory");
    }

    // What is there now; is_whole says whether that is all.
    __device__ __forceinline__ RowPiece look(int row, int dim) const {
        RowPiece piece;
        asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(piece.outcome.x), "=f"(piece.outcome.y), "=f"(piece.outcome.z), "=f"(piece.outcome.w)
                     : "l"(outcome(row, dim))
                     : "memory");
        asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
                     : "=f"(piece.origin), "=f"(piece.sum)
                     : "l"(sums(row))
                     : "memory");
        return piece;
    }
    static __device__ __forceinline__ bool is_whole(const RowPiece& piece) {
        return !(is_empty(piece.outcome.x) || is_empty(piece.outcome.y) || is_empty(piece.outcome.z) ||
                 is_empty(piece.outcome.w) || is_empty(piece.origin) || is_empty(piece.sum));
    }

    // Once all threads have read.
    __device__ __forceinline__ void empty(int row, int dim) const {
        const float nothing = __uint_as_float(kEmpty);
        *outcome(row, dim) = {nothing, nothing, nothing, nothing};
        if (dim == 0) *sums(row) = {nothing, nothing};
    }

  private:
    static __device__ __forceinline__ bool is_empty(float value) { return __float_as_uint(value) == kEmpty; }
    // A NaN that happens to look empty becomes another one.
    static __device__ __forceinline__ float filled(float value) { return is_empty(value) ? CUDART_NAN_F : value; }

    __device__ __forceinline__ float4* outcome(int row, int dim) const {
        return reinterpret_cast<float4*>(base_ + row * Variant::kHeadDim + dim);
    }
    __device__ __forceinline__ float2* sums(int row) const {
        return reinterpret_cast<float2*>(base_ + Variant::kUnitRows * Variant::kHeadDim) + row;
    }

    float* base_;
};

}  // namespace kvgrid::kernels
