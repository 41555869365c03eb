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

    // By all lanes; before the first step of each window of Variant::kWindowSteps.
    __device__ __forceinline__ void load(int step) {
        const int lane = threadIdx.x % 32;
        const int position = block_.first_page + step / Variant::kWindowSteps * 32 + lane;
        PageEntry entry{};
        if (position < block_.end_page) {
            entry = arguments_.entries[block_.unit.page_at(position, arguments_.kv_layer)];
        }
        const SliceTokens tokens = {entry.first_token, static_cast<int>(entry.token_count)};
        const SliceMask mask = mask_of(block_.unit, tokens, arguments_.group, arguments_.strictly_earlier);
        held_ = mask.held;
        end_ = mask.end;
        first_ = mask.first;
        sinks_ = mask.sinks;
        hidden_ = __ballot_sync(~0u, !mask.sees_all(kPageTokens));
    }

    // Whether some row does not see all of the step's slots.
    __device__ __forceinline__ bool hides(int step) const {
        constexpr std::uint32_t kPagesOfStep = (1u << Variant::kPages) - 1;
        return (hidden_ >> (step % Variant::kWindowSteps * Variant::kPages) & kPagesOfStep) != 0;
    }
    __device__ __forceinline__ SliceMask mask(int step, int page) const {
        const int lane = step % Variant::kWindowSteps * Variant::kPages + page;
        SliceMask mask;
        mask.held = __shfl_sync(~0u, held_, lane);
        mask.end = __shfl_sync(~0u, end_, lane);
        mask.first = __shfl_sync(~0u, first_, lane);
        mask.sinks = __shfl_sync(~0u, sinks_, lane);
        return mask;
    }

  private:
    const DecodeArguments& arguments_;
    const PrefillBlock& block_;
    int held_, end_, first_, sinks_;  // of this lane's page: SliceMask
    std::uint32_t hidden_;            // a bit for each page of the window
};

}  // namespace kvgrid::kernels
