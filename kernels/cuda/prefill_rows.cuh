#pragma once

#include <math_constants.h>

#include "kernels/cuda/decode_slots.cuh"
#include "kernels/cuda/decode_unit.cuh"
#include "kernels/cuda/prefill_schedule.h"
#include "kernels/cuda/prefill_slots.cuh"
#include "kernels/cuda/prefill_variant.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace kvgrid::kernels {

// A thread's share of 64 rows: scores, weights and outcome, in registers, as the sums of wgmma lie. It has two rows, 8 apart, and of each the
// columns 8j + 2 * (thread mod 4) + {0, 1}.
template <class Variant>
class PrefillRows {
    using Element = typename Variant::Element;

  public:
    // How far a maximum may rise, in powers of two, before the outcome is rescaled: rarely, and the result is the same.
    static constexpr float kLag = 8;

    __device__ __forceinline__ PrefillRows() {
#pragma unroll
        for (int index = 0; index < Variant::kOutcomes; ++index) outcome_[index] = 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            origin_[half] = kNoMaximum;
            factor_[half] = 1;
            sum_[half] = 0;
        }
    }

    // q of the block at `q`, K of a tile at `k_tile`; by group `group` of its rows.
    __device__ __forceinline__ void multiply_keys(std::uint32_t q, int group, std::uint32_t k_tile) {
#pragma unroll
        for (int panel = 0; panel < Variant::kPanels; ++panel) {
            const std::uint32_t width = Variant::panel_width(panel);
            const std::uint32_t q_panel = q + Variant::panel_in_rows(panel) + group * 64 * width;
            const std::uint32_t k_panel = k_tile + Variant::panel_in_tile(panel);
#pragma unroll
            for (std::uint32_t byte = 0; byte < width; byte += 32) {
                multiply_shared<Variant::kTokens, Element>(scores_, matrix_descriptor({q_panel + byte, 16, width}),
                                                           matrix_descriptor({k_panel + byte, 16, width}),
                                                           panel > 0 || byte > 0);
            }
        }
        wgmma_commit();
    }

    __device__ __forceinline__ void multiply_values(std::uint32_t v_tile, bool adds) {
        constexpr std::uint32_t kPanel = Variant::panel_in_tile(1);
        constexpr int kWidePanels = Variant::kWideColumns / 64;
#pragma unroll
        for (int step = 0; step < Variant::kInnerSteps; ++step) {
#pragma unroll
            for (int product = 0; product < Variant::kWideProducts; ++product) {
                const std::uint32_t place = v_tile + product * kWidePanels * kPanel + step * 16 * 128;
                multiply_registers<Variant::kWideColumns, Element>(
                    outcome_ + product * Variant::kWideColumns / 2, weights_[step],
                    matrix_descriptor({place, kPanel, 128}), step > 0 || adds);
            }
            if constexpr (Variant::kNarrowColumns > 0) {
                constexpr std::uint32_t kWidth = 2 * Variant::kNarrowColumns;
                const std::uint32_t place = v_tile + Variant::kWideProducts * kWidePanels * kPanel + step * 16 * kWidth;
                multiply_registers<Variant::kNarrowColumns, Element>(
                    outcome_ + Variant::kWideProducts * Variant::kWideColumns / 2, weights_[step],
                    matrix_descriptor({place, 16, kWidth}), step > 0 || adds);
            }
        }
        wgmma_commit();
    }

    // The compiler must leave them alone while a product is under way.
    __device__ __forceinline__ void hold_scores() {
        hold_registers(scores_);
    }
    __device__ __forceinline__ void hold_outcome() {
        hold_registers(outcome_);
    }

    __device__ __forceinline__ void cap(const DecodeArguments& arguments) {
#pragma unroll
        for (float& score : scores_) score = capped(score, arguments);
    }

    // Of page kPage of the step. queries: of this thread's rows, counted from the unit's first.
    template <int kPage>
    __device__ __forceinline__ void hide(const SliceMask& mask, const int (&queries)[2]) {
        constexpr int kColumnTiles = kPageTokens / 8;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int end = min(mask.held, mask.end + queries[half]), first = mask.first + queries[half];
#pragma unroll
            for (int element = 0; element < 2 * kColumnTiles; ++element) {  // two to a column tile
                const int slot = element / 2 * 8 + element % 2 + 2 * (static_cast<int>(threadIdx.x) % 4);
                float& score = scores_[4 * (kPage * kColumnTiles + element / 2) + 2 * half + element % 2];
                if (slot >= end || (slot < first && slot >= mask.sinks)) score = -CUDART_INF_F;
            }
        }
    }

    // Makes weights of the scores, and follows the maximum. Whether the outcome must be rescaled: the same for all lanes.
    __device__ __forceinline__ bool weigh(float scale_log2) {
        float moved[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float highest = scores_[2 * half];
#pragma unroll
            for (int tile = 0; tile < Variant::kTokens / 8; ++tile) {
                highest = fmaxf(highest, fmaxf(scores_[4 * tile + 2 * half], scores_[4 * tile + 2 * half + 1]));
            }
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            const float origin = highest * scale_log2 - Element::kOriginBelowMaximum;
            moved[half] = origin > origin_[half] + kLag ? origin : origin_[half];
        }
        const bool must_rescale = __any_sync(~0u, moved[0] != origin_[0] || moved[1] != origin_[1]);
        if (must_rescale) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                factor_[half] = exp2_fast(origin_[half] - moved[half]);
                origin_[half] = moved[half];
                sum_[half] *= factor_[half];
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int tile = 0; tile < Variant::kTokens / 8; ++tile) {
                float& first = scores_[4 * tile + 2 * half];
                float& second = scores_[4 * tile + 2 * half + 1];
                first = exp2_fast(fmaf(first, scale_log2, -moved[half]));
                second = exp2_fast(fmaf(second, scale_log2, -moved[half]));
                sum_[half] += first + second;
            }
        }
        return must_rescale;
    }

    __device__ __forceinline__ void rescale() {
#pragma unroll
        for (int index = 0; index < Variant::kOutcomes; ++index) outcome_[index] *= factor_[index / 2 % 2];
    }

    __device__ __forceinline__ void pack_weights() {
#pragma unroll
        for (int step = 0; step < Variant::kInnerSteps; ++step) {
#pragma unroll
            for (int pair = 0; pair < 4; ++pair) {
                weights_[step][pair] = Element::pack(scores_[8 * step + 2 * pair], scores_[8 * step + 2 * pair + 1]);
            }
        }
    }

    // To be merged by the same thread of another block.
    __device__ __forceinline__ void hand_over(const PrefillSlot<Variant>& slot) const {
#pragma unroll
        for (int index = 0; index < PrefillSlot<Variant>::kVectors; ++index) {
            const float* const from = outcome_ + 4 * index;
            hand_over_words(slot.vector(index), {from[0], from[1], from[2], from[3]});
        }
        hand_over_words(slot.sums(), {origin_[0], sum_[0], origin_[1], sum_[1]});
    }

    // Takes in what the slot holds, as soon as it is there, and empties it.
    __device__ __forceinline__ void merge(const PrefillSlot<Variant>& slot) {
        constexpr int kAtOnce = PrefillSlot<Variant>::kVectors % 8 == 0 ? 8 : 4;
        float4 theirs[1];
        take_words<1>(slot, PrefillSlot<Variant>::kVectors, theirs);
        float own_factor[2], factor[2];
        merge_sums(0, theirs[0].x, theirs[0].y, own_factor[0], factor[0]);
        merge_sums(1, theirs[0].z, theirs[0].w, own_factor[1], factor[1]);
#pragma unroll
        for (int first = 0; first < PrefillSlot<Variant>::kVectors; first += kAtOnce) {
            float4 words[kAtOnce];
            take_words<kAtOnce>(slot, first, words);
#pragma unroll
            for (int index = 0; index < kAtOnce; ++index) {
                float* const own = outcome_ + 4 * (first + index);
                own[0] = own[0] * own_factor[0] + words[index].x * factor[0];
                own[1] = own[1] * own_factor[0] + words[index].y * factor[0];
                own[2] = own[2] * own_factor[1] + words[index].z * factor[1];
                own[3] = own[3] * own_factor[1] + words[index].w * factor[1];
            }
        }
    }

    // Of this thread's row `half`: the sum over all lanes that share it, by which the outcome is still to be divided, and its origin.
    __device__ __forceinline__ float row_sum(int half) const {
        const float sum = sum_[half] + __shfl_xor_sync(~0u, sum_[half], 1);
        return sum + __shfl_xor_sync(~0u, sum, 2);
    }
    __device__ __forceinline__ float origin(int half) const {
        return origin_[half];
    }

    // The row times `factor`, two dims at a time: take(dim, both).
    template <class Take>
    __device__ __forceinline__ void for_each_pair(int half, float factor, const Take& take) const {
#pragma unroll
        for (int tile = 0; tile < Variant::kHeadDim / 8; ++tile) {
            const float* const from = outcome_ + 4 * tile + 2 * half;
            take(tile * 8 + 2 * (static_cast<int>(threadIdx.x) % 4), float2{from[0] * factor, from[1] * factor});
        }
    }
    // The same in the dtype, eight dims at a time: the four lanes of a row exchange what they hold of four column tiles, so that each
    // writes 16 bytes of one.
    template <class Take>
    __device__ __forceinline__ void for_each_packed(int half, float factor, const Take& take) const {
        const bool is_odd = threadIdx.x % 2 != 0, is_high = threadIdx.x % 4 >= 2;
#pragma unroll
        for (int first = 0; first < Variant::kHeadDim / 8; first += 4) {
            std::uint32_t words[4];
#pragma unroll
            for (int tile = 0; tile < 4; ++tile) {
                const float* const from = outcome_ + 4 * (first + tile) + 2 * half;
                words[tile] = Element::pack(from[0] * factor, from[1] * factor);
            }
            exchange(words[0], words[1], is_odd, 1);
            exchange(words[2], words[3], is_odd, 1);
            exchange(words[0], words[2], is_high, 2);
            exchange(words[1], words[3], is_high, 2);
            take((first + static_cast<int>(threadIdx.x) % 4) * 8, uint4{words[0], words[1], words[2], words[3]});
        }
    }

  private:
    // Between two lanes `distance` apart: the upper one's `low` and the lower one's `high` change places.
    static __device__ __forceinline__ void exchange(std::uint32_t& low, std::uint32_t& high, bool is_upper,
                                                    int distance) {
        const std::uint32_t theirs = __shfl_xor_sync(~0u, is_upper ? low : high, distance);
        low = is_upper ? theirs : low;
        high = is_upper ? high : theirs;
    }

    // A sum that saw nothing has the lowest origin and weighs nothing.
    __device__ __forceinline__ void merge_sums(int half, float origin, float sum, float& own_factor, float& factor) {
        const float highest = fmaxf(origin_[half], origin);
        own_factor = exp2_fast(origin_[half] - highest);
        factor = exp2_fast(origin - highest);
        sum_[half] = sum_[half] * own_factor + sum * factor;
        origin_[half] = highest;
    }

    template <int kCount>
    static __device__ __forceinline__ void take_words(const PrefillSlot<Variant>& slot, int first,
                                                      float4 (&words)[kCount]) {
        bool are_whole;
        do {
            are_whole = true;
#pragma unroll
            for (int index = 0; index < kCount; ++index) words[index] = look_at_words(slot.vector(first + index));
#pragma unroll
            for (int index = 0; index < kCount; ++index) are_whole &= is_whole(words[index]);
        } while (!are_whole);
#pragma unroll
        for (int index = 0; index < kCount; ++index) empty_words(slot.vector(first + index));
    }

    float scores_[Variant::kScores];
    float outcome_[Variant::kOutcomes];
    std::uint32_t weights_[Variant::kInnerSteps][4];
    float origin_[2], factor_[2], sum_[2];
};

}  // namespace kvgrid::kernels
