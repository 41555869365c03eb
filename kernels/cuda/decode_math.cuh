#pragma once

#include <math_constants.h>

#include "kernels/cuda/decode_ring.cuh"
#include "kernels/cuda/decode_slots.cuh"

namespace kvgrid::kernels {

// The rows of a unit against slices of its stream, in one warp's registers. Tokens and dims take the tensor cores' 16 side and rows the 8
// side, so that a group of 8 or less wastes nothing:
//
//   scores    S^T [16 tokens x 8 rows] = K [16 tokens x dims] * Q^T        K as it lies in shared memory
//   weights   P^T [16 tokens x 8 rows]: the sums' registers hold it with tokens across lanes; two 8x8 transpositions make it the factor
//   outcome   O^T [16 dims x 8 rows] += V^T [16 dims x 16 tokens] * P^T    V by transposing loads
//
// Weights are 2^(logit2 - origin), where logit2 is the logit times log2(e). The origin follows the maximum only when it is left behind by
// more than kLag powers of two: rescaling is rare, and the result is the same. Where pages have scales, that of K multiplies the scores,
// and outcomes are counted in that of V of the slice seen last.
template <class Variant>
class UnitSums {
    using Math = typename Variant::Math;
    using Tiles = Fragments<Variant>;
    static constexpr float kLag = 8;
    static constexpr float kLargest = 0x1p127f;

  public:
    // `memory`: kQueryBytes of shared memory; all threads of the block call this.
    __device__ __forceinline__ void begin(const DecodeArguments& arguments, const DecodeUnit& unit,
                                          const typename UnitQueries<Variant>::Asked& asked, std::byte* memory) {
        queries_.begin(arguments, unit, asked, memory);
        value_unit_ = 1;
#pragma unroll
        for (int index = 0; index < Variant::kLaneRows; ++index) {
            origin_[index] = kNoMaximum;
            sum_[index] = 0;
        }
#pragma unroll
        for (int dims = 0; dims < Variant::kDimTiles; ++dims) {
#pragma unroll
            for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
#pragma unroll
                for (float& element : outcome_[dims][tile]) element = 0;
            }
        }
    }

    __device__ __forceinline__ void add_slice(const DecodeArguments& arguments, const DecodeUnit& unit,
                                              const SliceMask& mask, const Slice& slice) {
        float scores[Variant::kTiles][Variant::kRowTiles][4];
        multiply_keys(slice.k, scores);
        float to_log2[Variant::kLaneRows];
        find_factors(arguments, slice.scales.k, to_log2);
        if (arguments.cap_inner > 0) cap(arguments, scores, to_log2);
        const bool sees_all = mask.sees_all(Variant::kSliceTokens);
        if (!sees_all) hide(arguments, unit, mask, scores);
        follow_maximum(to_log2, scores);
        std::uint32_t weights[Variant::kTiles][Variant::kRowTiles][2];
        weigh(to_log2, scores, weights);
        if constexpr (Variant::Kv::kHasScales) count_values_in(slice.scales.v);
        if (sees_all) {
            add_values(slice.v, weights);
        } else {
            add_seen_values(arguments, unit, mask, slice.v, weights);
        }
    }

    // Adds up over the lanes what each lane summed of its tokens.
    __device__ __forceinline__ void finish_sums() {
#pragma unroll
        for (float& sum : sum_) {
            for (int distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(~0u, sum, distance);
        }
    }

    // rows: [kUnitRows][kOutcomeStride] in shared memory.
    __device__ __forceinline__ void store(float* rows, float* origins, float* sums) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
            const int row = tile * 8 + 2 * (lane % 4);
            float* const first = rows + row * Variant::kOutcomeStride + Tiles::first_dim(lane);
            float* const second = rows + row * Variant::kOutcomeStride + Tiles::second_dim(lane);
#pragma unroll
            for (int dims = 0; dims < Variant::kDimTiles; ++dims) {
                first[dims * 16] = outcome_[dims][tile][0] * value_unit_;
                first[dims * 16 + Variant::kOutcomeStride] = outcome_[dims][tile][1] * value_unit_;
                second[dims * 16] = outcome_[dims][tile][2] * value_unit_;
                second[dims * 16 + Variant::kOutcomeStride] = outcome_[dims][tile][3] * value_unit_;
            }
            if (lane < 4) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    origins[row + half] = origin_[2 * tile + half];
                    sums[row + half] = sum_[2 * tile + half];
                }
            }
        }
    }

  private:
    __device__ __forceinline__ void multiply_keys(std::uint32_t k_slice,
                                                  float (&scores)[Variant::kTiles][Variant::kRowTiles][4]) const {
#pragma unroll
        for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
#pragma unroll
            for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
#pragma unroll
                for (float& score : scores[tokens][tile]) score = 0;
            }
        }
#pragma unroll
        for (int step = 0; step < Variant::kDimTiles; step += 2) {
            std::uint32_t queries[Variant::kRowTiles][4];
#pragma unroll
            for (int tile = 0; tile < Variant::kRowTiles; ++tile) queries_.load(queries[tile], step, tile);
#pragma unroll
            for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
                std::uint32_t keys[2][4];
                Tiles::load_keys(keys, k_slice, tokens, step);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
#pragma unroll
                    for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
                        const std::uint32_t query[2] = {queries[tile][2 * half], queries[tile][2 * half + 1]};
                        Math::multiply(scores[tokens][tile], keys[half], query);
                    }
                }
            }
        }
    }

    // What makes logits in powers of two of the scores of each row.
    __device__ __forceinline__ void find_factors(const DecodeArguments& arguments, float k_scale,
                                                 float (&to_log2)[Variant::kLaneRows]) const {
#pragma unroll
        for (int index = 0; index < Variant::kLaneRows; ++index) {
            to_log2[index] = arguments.scale_log2;
            // Bounded, so that a score of 0 stays 0; others overflow as they would in bf16.
            if constexpr (Variant::Kv::kHasScales) {
                to_log2[index] *= fminf(queries_.unit_of_row(index) * k_scale, kLargest);
            }
        }
    }

    // Capped scores are q k itself: what they were multiplied by is no longer in the factors.
    static __device__ __forceinline__ void cap(const DecodeArguments& arguments,
                                               float (&scores)[Variant::kTiles][Variant::kRowTiles][4],
                                               float (&to_log2)[Variant::kLaneRows]) {
#pragma unroll
        for (int index = 0; index < Variant::kLaneRows; ++index) {
            const float unit = Variant::Kv::kHasScales ? to_log2[index] / arguments.scale_log2 : 1;
#pragma unroll
            for (auto& of_tokens : scores) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float& score = of_tokens[index / 2][index % 2 + 2 * half];
                    score = capped(score * unit, arguments);
                }
            }
            to_log2[index] = arguments.scale_log2;
        }
    }

    // Queries, counted within the unit, of the rows of which this lane holds scores.
    static __device__ __forceinline__ int query_of(const DecodeArguments& arguments, const DecodeUnit& unit,
                                                   int index) {
        const int row = index / 2 * 8 + 2 * (static_cast<int>(threadIdx.x) % 4) + index % 2;
        return (unit.first_head + row) / arguments.group;
    }

    static __device__ __forceinline__ void hide(const DecodeArguments& arguments, const DecodeUnit& unit,
                                                const SliceMask& mask,
                                                float (&scores)[Variant::kTiles][Variant::kRowTiles][4]) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int index = 0; index < Variant::kLaneRows; ++index) {
            const int query = query_of(arguments, unit, index);
#pragma unroll
            for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
                float(&of_rows)[4] = scores[tokens][index / 2];
                const int slot = tokens * 16 + lane / 4;
                if (!mask.sees(slot, query)) of_rows[index % 2] = -CUDART_INF_F;
                if (!mask.sees(slot + 8, query)) of_rows[index % 2 + 2] = -CUDART_INF_F;
            }
        }
    }

    __device__ __forceinline__ void follow_maximum(const float (&to_log2)[Variant::kLaneRows],
                                                   const float (&scores)[Variant::kTiles][Variant::kRowTiles][4]) {
        float highest[Variant::kLaneRows];
        bool is_behind = false;
#pragma unroll
        for (int index = 0; index < Variant::kLaneRows; ++index) {
            highest[index] = -CUDART_INF_F;
#pragma unroll
            for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
                const float(&of_rows)[4] = scores[tokens][index / 2];
                highest[index] = fmaxf(highest[index], fmaxf(of_rows[index % 2], of_rows[index % 2 + 2]));
            }
            highest[index] = highest[index] * to_log2[index] - Math::kOriginBelowMaximum;
            is_behind |= highest[index] > origin_[index] + kLag;
        }
        if (__any_sync(~0u, is_behind)) move_origin(highest);
    }

    __device__ __forceinline__ void move_origin(float (&highest)[Variant::kLaneRows]) {
#pragma unroll
        for (int index = 0; index < Variant::kLaneRows; ++index) {
            for (int distance = 4; distance < 32; distance *= 2) {
                highest[index] = fmaxf(highest[index], __shfl_xor_sync(~0u, highest[index], distance));
            }
            const float moved = fmaxf(origin_[index], highest[index]);
            const float factor = exp2_fast(origin_[index] - moved);
            origin_[index] = moved;
            sum_[index] *= factor;
#pragma unroll
            for (int dims = 0; dims < Variant::kDimTiles; ++dims) {
                outcome_[dims][index / 2][index % 2] *= factor;
                outcome_[dims][index / 2][index % 2 + 2] *= factor;
            }
        }
    }

    __device__ __forceinline__ void weigh(const float (&to_log2)[Variant::kLaneRows],
                                          const float (&scores)[Variant::kTiles][Variant::kRowTiles][4],
                                          std::uint32_t (&weights)[Variant::kTiles][Variant::kRowTiles][2]) {
#pragma unroll
        for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
#pragma unroll
            for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {  // 8 tokens each
                    const float(&of_rows)[4] = scores[tokens][tile];
                    const float first = exp2_fast(fmaf(of_rows[2 * half], to_log2[2 * tile], -origin_[2 * tile]));
                    const float second =
                        exp2_fast(fmaf(of_rows[2 * half + 1], to_log2[2 * tile + 1], -origin_[2 * tile + 1]));
                    sum_[2 * tile] += first;
                    sum_[2 * tile + 1] += second;
                    weights[tokens][tile][half] = transpose_matrix(Math::pack(first, second));
                }
            }
        }
    }

    // Scales are powers of two, and their range is bounded: exact.
    __device__ __forceinline__ void count_values_in(float unit) {
        if (unit == value_unit_) return;
        const float factor = quotient_of_powers(value_unit_, unit);
        value_unit_ = unit;
#pragma unroll
        for (auto& of_dims : outcome_) {
#pragma unroll
            for (auto& of_rows : of_dims) {
#pragma unroll
                for (float& element : of_rows) element *= factor;
            }
        }
    }

    __device__ __forceinline__ void add_values(std::uint32_t v_slice,
                                               const std::uint32_t (&weights)[Variant::kTiles][Variant::kRowTiles][2]) {
#pragma unroll
        for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
#pragma unroll
            for (int dims = 0; dims < Variant::kDimTiles; dims += 2) {
                std::uint32_t values[2][4];
                Tiles::load_values(values, v_slice, tokens, dims);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
#pragma unroll
                    for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
                        Math::multiply(outcome_[dims + half][tile], values[half], weights[tokens][tile]);
                    }
                }
            }
        }
    }

    // The same for slices of which not every query sees every slot. A weight of 0 does not keep out a NaN of V, so the values are
    // cleared of what a query does not see, query by query, and only its rows take the result.
    __device__ __forceinline__ void add_seen_values(
        const DecodeArguments& arguments, const DecodeUnit& unit, const SliceMask& mask, std::uint32_t v_slice,
        const std::uint32_t (&weights)[Variant::kTiles][Variant::kRowTiles][2]) {
        const int lane = threadIdx.x % 32;
        int queries[Variant::kLaneRows];
#pragma unroll
        for (int index = 0; index < Variant::kLaneRows; ++index) queries[index] = query_of(arguments, unit, index);
        for (int query = 0; query < mask.query_count; ++query) {
#pragma unroll
            for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
                const int slot = tokens * 16 + 2 * (lane % 4);
                std::uint32_t keep[2];  // of this lane's tokens slot, slot + 1; and of those 8 further on
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    keep[half] = (mask.sees(slot + 8 * half, query) ? 0xffffu : 0u) |
                                 (mask.sees(slot + 8 * half + 1, query) ? 0xffff0000u : 0u);
                }
#pragma unroll
                for (int dims = 0; dims < Variant::kDimTiles; dims += 2) {
                    std::uint32_t values[2][4];
                    Tiles::load_values(values, v_slice, tokens, dims);
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
#pragma unroll
                        for (int pair = 0; pair < 4; ++pair) values[half][pair] &= keep[pair / 2];
#pragma unroll
                        for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
                            float(&to)[4] = outcome_[dims + half][tile];
                            float added[4] = {to[0], to[1], to[2], to[3]};
                            Math::multiply(added, values[half], weights[tokens][tile]);
#pragma unroll
                            for (int element = 0; element < 4; ++element) {
                                if (queries[2 * tile + element % 2] == query) to[element] = added[element];
                            }
                        }
                    }
                }
            }
        }
    }

    UnitQueries<Variant> queries_;
    float outcome_[Variant::kDimTiles][Variant::kRowTiles][4];
    float origin_[Variant::kLaneRows];
    float sum_[Variant::kLaneRows];
    float value_unit_ = 1;  // of outcomes
};

}  // namespace kvgrid::kernels
