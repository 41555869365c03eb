#pragma once

#include "kernels/cuda/decode_ring.cuh"

namespace kvgrid::kernels {

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
