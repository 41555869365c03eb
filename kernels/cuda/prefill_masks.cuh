#pragma once

#include "kernels/cuda/decode_unit.cuh"
#include "kernels/cuda/prefill_schedule.h"

namespace kvgrid::kernels {

// What the rows of a block see of its pages. Each warp reads the entries itself, 32 pages at a time and one to a lane, and keeps them in
// registers: a step whose pages are whole and seen by all rows costs two bits, and nothing lies in shared memory that the copying warp would
// overwrite.
template <class Variant>
class PrefillMasks {
  public:
    __device__ __forceinline__ PrefillMasks(const DecodeArguments& arguments, const PrefillBlock& block)
        : arguments_(arguments), block_(block) {}

    // So that load() of the newest step finds its entries near by.
    __device__ __forceinline__ void prefetch_newest() const {
        const int position = block_.end_page - 1 - static_cast<int>(threadIdx.x) % 32;
        if (position >= block_.first_page) prefetch(entry_at(position));
    }

    // By all lanes; before the first step of each window of Variant::kWindowSteps.
    __device__ __forceinline__ void load(int step) {
        const int position = position_of_lane(step);
        PageEntry entry{};
        if (position < block_.end_page) entry = *entry_at(position);
        const SliceTokens tokens = {entry.first_token, static_cast<int>(entry.token_count)};
        const SliceMask mask = mask_of(block_.unit, tokens, arguments_.group, arguments_.strictly_earlier);
        held_and_sinks_ = packed(mask.held, mask.sinks);
        end_and_first_ = packed(mask.end, mask.first);
        hidden_ = __ballot_sync(~0u, !mask.sees_all(kPageTokens));
    }

    // Whether some row does not see all of the step's slots.
    __device__ __forceinline__ bool hides(int step) const {
        constexpr std::uint32_t kPagesOfStep = (1u << Variant::kPages) - 1;
        return (hidden_ >> (step % Variant::kWindowSteps * Variant::kPages) & kPagesOfStep) != 0;
    }
    __device__ __forceinline__ SliceMask mask(int step, int page) const {
        const int lane = step % Variant::kWindowSteps * Variant::kPages + page;
        const std::uint32_t held_and_sinks = __shfl_sync(~0u, held_and_sinks_, lane);
        const std::uint32_t end_and_first = __shfl_sync(~0u, end_and_first_, lane);
        SliceMask mask;
        mask.held = low(held_and_sinks);
        mask.sinks = high(held_and_sinks);
        mask.end = low(end_and_first);
        mask.first = high(end_and_first);
        return mask;
    }

  private:
    __device__ __forceinline__ int position_of_lane(int step) const {
        return block_.first_page + step / Variant::kWindowSteps * 32 + static_cast<int>(threadIdx.x) % 32;
    }
    __device__ __forceinline__ const PageEntry* entry_at(int position) const {
        return arguments_.entries + block_.unit.page_at(position, arguments_.kv_layer);
    }

    // Two numbers in a register. Beyond a page and a block's rows it does not matter how far.
    static __device__ __forceinline__ std::uint32_t packed(int low, int high) {
        constexpr int kFar = 1 << 14;
        return (max(-kFar, min(kFar, low)) & 0xffff) | max(-kFar, min(kFar, high)) << 16;
    }
    static __device__ __forceinline__ int low(std::uint32_t both) { return static_cast<std::int16_t>(both); }
    static __device__ __forceinline__ int high(std::uint32_t both) { return static_cast<int>(both) >> 16; }

    const DecodeArguments& arguments_;
    const PrefillBlock& block_;
    std::uint32_t held_and_sinks_, end_and_first_;  // of this lane's page: SliceMask
    std::uint32_t hidden_;                          // a bit for each page of the window
};

}  // namespace kvgrid::kernels
