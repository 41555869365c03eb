#pragma once

#include <math_constants.h>

#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// Which tokens lie in a slice.
struct SliceTokens {
    std::int64_t first_token;  // order number of the slice's first slot
    int count;                 // tokens held, from the first slot; 0 or less: none
};

// Where row `row` of a unit lies in q and in the outputs, counted in query heads.
__device__ __forceinline__ std::size_t row_of_unit(const DecodeArguments& arguments, const DecodeUnit& unit, int row) {
    const int at = unit.first_head + row;
    const std::size_t query = static_cast<std::size_t>(unit.query_row + at / arguments.group);
    return query * arguments.query_heads + unit.kv_head * arguments.group + at % arguments.group;
}

// soft_cap * tanh(scale * score / soft_cap) / scale, where there is a cap. tanh(x) = 1 - 2 / (e^2x + 1), within some 2^-22 of 1.
__device__ __forceinline__ float capped(float score, const DecodeArguments& arguments) {
    const float power = exp2_fast(score * (2 * CUDART_L2E_F * arguments.cap_inner));
    return arguments.cap_outer * (1 - __fdividef(2, power + 1));
}

// Which slots of a slice the queries of a unit see. Query 0 is that of the unit's first row; slots count from the slice's first.
struct SliceMask {
    int held;         // slots that hold a token
    int end;          // query q sees slots below end + q
    int first;        // ... and from first + q on
    int sinks;        // ... or below sinks
    int query_count;  // of the unit

    __device__ __forceinline__ bool sees(int slot, int query) const {
        return slot < held && slot < end + query && (slot >= first + query || slot < sinks);
    }
    // Whether all queries see all slots.
    __device__ __forceinline__ bool sees_all(int slots) const {
        return held >= slots && end >= slots && (first + query_count - 1 <= 0 || sinks >= slots);
    }
};

// The distance of two order numbers, as far as it matters to a slice.
__device__ __forceinline__ int near(std::int64_t distance) {
    constexpr std::int64_t kFar = 1 << 20;
    return static_cast<int>(distance < -kFar ? -kFar : (distance > kFar ? kFar : distance));
}

__device__ __forceinline__ SliceMask mask_of(const DecodeUnit& unit, const SliceTokens& tokens, int group,
                                             bool strictly_earlier) {
    const std::int64_t ahead = unit.first_query - tokens.first_token;
    SliceMask mask;
    mask.held = tokens.count;
    mask.end = near(strictly_earlier ? ahead : ahead + 1);
    mask.first = unit.window == 0 ? -(1 << 20) : near(ahead - unit.window + 1);
    mask.sinks = near(unit.sinks - tokens.first_token);
    mask.query_count = (unit.first_head + unit.row_count - 1) / group + 1;
    return mask;
}

}  // namespace kvgrid::kernels
