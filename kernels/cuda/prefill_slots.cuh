#pragma once

#include "kernels/cuda/flagged_words.cuh"
#include "kernels/cuda/prefill_schedule.h"

namespace kvgrid::kernels {

// Partial outcomes of units that were cut, in global memory, one slot for each block; their words carry their own flags.
//
//   [kOutcomes / 4][threads that compute][4] f32 outcome, as the sums of wgmma lie, then [threads][4]: {origin, sum} of each of its two rows
//
// What a thread handed over is read by the same thread of another block: whole lines, and no exchange through shared memory.
template <class Variant>
class PrefillSlot {
  public:
    static constexpr int kVectors = Variant::kOutcomes / 4;

    __device__ PrefillSlot(float* slots, int index) {
        constexpr std::size_t kFloats = prefill_slot_floats(Variant::kHeadDim);
        static_assert(kFloats == (kVectors + 1) * Variant::kComputing * 4);
        own_ = reinterpret_cast<float4*>(slots + index * kFloats) + threadIdx.x % Variant::kComputing;
    }

    __device__ __forceinline__ float4* vector(int index) const { return own_ + index * Variant::kComputing; }
    __device__ __forceinline__ float4* sums() const { return vector(kVectors); }

  private:
    float4* own_;
};

// Which parts a part merges into its own. Where there are many, every group_parts of them merge into the last of theirs first:
//
//   part   0 ... 4  5  6 ... 10  11  12  13  14 (the last)
//          `----->--'  `----->---'
//                   `------->------->--->----'
struct PrefillParts {
    int group_parts;
    int group_count;  // whole groups before this part's
    int begin, end;   // of what is to be merged: results of whole groups, then parts of this one's group

    __device__ static PrefillParts of(const PrefillBlock& block) {
        const int group_count = block.part / block.group_parts, members = block.part % block.group_parts;
        if (block.is_last_part()) return {block.group_parts, group_count, 0, group_count + members};
        const bool ends_group = members == block.group_parts - 1;
        return {block.group_parts, group_count, group_count, group_count + (ends_group ? members : 0)};
    }
    __device__ int part_at(int index) const {
        return index < group_count ? (index + 1) * group_parts - 1 : group_count * group_parts + index - group_count;
    }
};

}  // namespace kvgrid::kernels
