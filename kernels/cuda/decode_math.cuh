#pragma once

#include <math_constants.h>

#include "kernels/cuda/decode_ring.cuh"
#include "kernels/cuda/decode_slots.cuh"
#include "kernels/cuda/decode_unit.cuh"

namespace kvgrid::kernels {

// The rows of a unit against slices of its stream, in one warp's registers. Tokens and dims take the tensor cores' 16 side and rows the 8
// side, so that a group of 8 or less wastes nothing:
//
//   scores    S^T [16 tokens x 8 rows] = K [16 tokens x dims] * Q^T        K as it lies in shared memory
//   weights   P^T [16 tokens x 8 rows]: the sums' registers hold it with tokens across lanes; two 8x8 transpositions make it the factor
//   outcome   O^T [16 dims x 8 rows] += V^T [16 dims x 16 tokens] * P^T    V by transposing loads
//
// Weights are 2^(logit2 - origin), where logit2 is the logit times log2(e). The origin follows the maximum only when it is left behind by
// more than kLag powers of two: rescaling is rare, and the result is the same.
template <class Variant>
class UnitSums {
    using Element = typename Variant::Element;
    static constexpr float kLag = 8;

  public:
    // `memory`: kQueryBytes of shared memory, unless kKeepsQueries; all threads of the block call this.
    __device__ __forceinline__ void begin(const DecodeArguments& arguments, const DecodeUnit& unit, std::byte* memory) {
        if constexpr (Variant::kKeepsQueries) {
            keep_queries(arguments, unit);
        } else {
            share_queries(arguments, unit, memory);
        }
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
                                              const SliceMask& mask, std::uint32_t k_slice, std::uint32_t v_slice) {
        float scores[Variant::kTiles][Variant::kRowTiles][4];
        multiply_keys(k_slice, scores);
        if (arguments.cap_inner > 0) cap(arguments, scores);
        const bool sees_all = mask.sees_all(Variant::kSliceTokens);
        if (!sees_all) hide(arguments, unit, mask, scores);
        follow_maximum(arguments.scale_log2, scores);
        std::uint32_t weights[Variant::kTiles][Variant::kRowTiles][2];
        weigh(arguments.scale_log2, scores, weights);
        if (sees_all) {
            add_values(v_slice, weights);
        } else {
            add_seen_values(arguments, unit, mask, v_slice, weights);
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
            float* const to = rows + row * Variant::kOutcomeStride + lane / 4;
#pragma unroll
            for (int dims = 0; dims < Variant::kDimTiles; ++dims) {
                to[dims * 16] = outcome_[dims][tile][0];
                to[dims * 16 + Variant::kOutcomeStride] = outcome_[dims][tile][1];
                to[dims * 16 + 8] = outcome_[dims][tile][2];
                to[dims * 16 + 8 + Variant::kOutcomeStride] = outcome_[dims][tile][3];
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
    static __device__ __forceinline__ const std::byte* query_of_row(const DecodeArguments& arguments,
                                                                    const DecodeUnit& unit, int row) {
        return static_cast<const std::byte*>(arguments.q) + row_of_unit(arguments, unit, row) * (2 * Variant::kHeadDim);
    }

    __device__ __forceinline__ void keep_queries(const DecodeArguments& arguments, const DecodeUnit& unit) {
        const int lane = threadIdx.x % 32, row = lane / 4;
        const bool is_there = row < unit.row_count;
        const auto* const from = reinterpret_cast<const std::uint32_t*>(query_of_row(arguments, unit, row)) + lane % 4;
#pragma unroll
        for (int step = 0; step < Variant::kDimTiles; ++step) {
            q_[step][0] = is_there ? from[step * 8] : 0;
            q_[step][1] = is_there ? from[step * 8 + 4] : 0;
        }
    }

    __device__ __forceinline__ void share_queries(const DecodeArguments& arguments, const DecodeUnit& unit,
                                                  std::byte* memory) {
        constexpr int kChunksPerRow = Variant::kHeadDim / 8;
        q_memory_ = shared_address(memory);
        for (int chunk = threadIdx.x; chunk < Variant::kUnitRows * kChunksPerRow; chunk += Variant::kThreads) {
            const int row = chunk / kChunksPerRow, byte = chunk % kChunksPerRow * 16;
            uint4 words = {0, 0, 0, 0};
            if (row < unit.row_count) {
                words = *reinterpret_cast<const uint4*>(query_of_row(arguments, unit, row) + byte);
            }
            *reinterpret_cast<uint4*>(memory + row * Variant::kQueryStride + byte) = words;
        }
        __syncthreads();
    }

    // Two steps of 16 dims of 8 rows: [step][half] in `queries`.
    __device__ __forceinline__ void load_queries(std::uint32_t (&queries)[4], int step, int tile) const {
        if constexpr (Variant::kKeepsQueries) {
            queries[0] = q_[step][0];
            queries[1] = q_[step][1];
            queries[2] = q_[step + 1][0];
            queries[3] = q_[step + 1][1];
        } else {
            const int lane = threadIdx.x % 32;
            const int row = tile * 8 + lane % 8;
            load_matrices(queries, q_memory_ + row * Variant::kQueryStride + (2 * step + lane / 8) * 16);
        }
    }

    // The address of a 16-byte chunk of a token's row in a slice. `chunk` is even and known to the compiler, `odd` is 0 or 1.
    static __device__ __forceinline__ std::uint32_t chunk_address(std::uint32_t slice, int token, int chunk, int odd) {
        const int panel = chunk / 8;
        const int width = Variant::panel_width(panel);
        const int swizzled = (chunk % 8 + odd) ^ DevicePageLayout::swizzle(token, width);
        return slice + Variant::panel_in_slice(panel) + token * width + swizzled * DevicePageLayout::kChunkBytes;
    }

    __device__ __forceinline__ void multiply_keys(std::uint32_t k_slice,
                                                  float (&scores)[Variant::kTiles][Variant::kRowTiles][4]) const {
        const int lane = threadIdx.x % 32;
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
            for (int tile = 0; tile < Variant::kRowTiles; ++tile) load_queries(queries[tile], step, tile);
#pragma unroll
            for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    std::uint32_t keys[4];
                    load_matrices(keys, chunk_address(k_slice, tokens * 16 + lane % 16, 2 * (step + half), lane / 16));
#pragma unroll
                    for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
                        const std::uint32_t query[2] = {queries[tile][2 * half], queries[tile][2 * half + 1]};
                        Element::multiply(scores[tokens][tile], keys, query);
                    }
                }
            }
        }
    }

    static __device__ __forceinline__ void cap(const DecodeArguments& arguments,
                                               float (&scores)[Variant::kTiles][Variant::kRowTiles][4]) {
#pragma unroll
        for (auto& of_tokens : scores) {
#pragma unroll
            for (auto& of_rows : of_tokens) {
#pragma unroll
                for (float& score : of_rows) score = capped(score, arguments);
            }
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

    __device__ __forceinline__ void follow_maximum(float scale_log2,
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
            highest[index] = highest[index] * scale_log2 - Element::kOriginBelowMaximum;
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

    __device__ __forceinline__ void weigh(float scale_log2,
                                          const float (&scores)[Variant::kTiles][Variant::kRowTiles][4],
                                          std::uint32_t (&weights)[Variant::kTiles][Variant::kRowTiles][2]) {
#pragma unroll
        for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
#pragma unroll
            for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {  // 8 tokens each
                    const float first = exp2_fast(fmaf(scores[tokens][tile][2 * half], scale_log2, -origin_[2 * tile]));
                    const float second =
                        exp2_fast(fmaf(scores[tokens][tile][2 * half + 1], scale_log2, -origin_[2 * tile + 1]));
                    sum_[2 * tile] += first;
                    sum_[2 * tile + 1] += second;
                    weights[tokens][tile][half] = transpose_matrix(Element::pack(first, second));
                }
            }
        }
    }

    // 16 dims of 16 tokens of V, as the left factor.
    static __device__ __forceinline__ void load_values(std::uint32_t (&values)[4], std::uint32_t v_slice, int tokens,
                                                       int dims) {
        const int lane = threadIdx.x % 32;
        const int token = tokens * 16 + lane % 8 + lane / 16 * 8;
        load_matrices_transposed(values, chunk_address(v_slice, token, 2 * dims, lane / 8 % 2));
    }

    __device__ __forceinline__ void add_values(std::uint32_t v_slice,
                                               const std::uint32_t (&weights)[Variant::kTiles][Variant::kRowTiles][2]) {
#pragma unroll
        for (int tokens = 0; tokens < Variant::kTiles; ++tokens) {
#pragma unroll
            for (int dims = 0; dims < Variant::kDimTiles; ++dims) {
                std::uint32_t values[4];
                load_values(values, v_slice, tokens, dims);
#pragma unroll
                for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
                    Element::multiply(outcome_[dims][tile], values, weights[tokens][tile]);
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
                for (int dims = 0; dims < Variant::kDimTiles; ++dims) {
                    std::uint32_t values[4];
                    load_values(values, v_slice, tokens, dims);
                    values[0] &= keep[0];
                    values[1] &= keep[0];
                    values[2] &= keep[1];
                    values[3] &= keep[1];
#pragma unroll
                    for (int tile = 0; tile < Variant::kRowTiles; ++tile) {
                        float(&to)[4] = outcome_[dims][tile];
                        float added[4] = {to[0], to[1], to[2], to[3]};
                        Element::multiply(added, values, weights[tokens][tile]);
#pragma unroll
                        for (int element = 0; element < 4; ++element) {
                            if (queries[2 * tile + element % 2] == query) to[element] = added[element];
                        }
                    }
                }
            }
        }
    }

    std::uint32_t q_[Variant::kKeepsQueries ? Variant::kDimTiles : 1][2];
    std::uint32_t q_memory_ = 0;
    float outcome_[Variant::kDimTiles][Variant::kRowTiles][4];
    float origin_[Variant::kLaneRows];
    float sum_[Variant::kLaneRows];
};

}  // namespace kvgrid::kernels
