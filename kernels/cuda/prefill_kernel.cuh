#pragma once

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_finish.cuh"
#include "kernels/cuda/decode_schedule_rules.h"
#include "kernels/cuda/decode_unit.cuh"
#include "kernels/cuda/prefill_copies.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace kvgrid::kernels {

// One of the two warp groups that compute.
template <class Variant>
class PrefillRows {
    using Element = typename Variant::Element;
    static constexpr int kColumnTiles = Variant::kTokens / 8;

  public:
    // `ring`: where the stages begin, behind q.
    __device__ __forceinline__ PrefillRows(const DecodeArguments& arguments, PrefillShared& shared, std::uint32_t ring,
                                           int group)
        : arguments_(arguments), shared_(shared), group_(group), ring_(ring) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            origin_[half] = kNoMaximum;
            factor_[half] = 1;
            sum_[half] = 0;
            query_[half] = (shared.unit.first_head + first_row() + 8 * half) / arguments.group;
        }
    }

    // Barrier 2 is group 0's turn at the tensor cores, barrier 3 is group 1's; group 0 begins, and takes back the turn that is left over.
    __device__ __forceinline__ void run() {
#pragma unroll
        for (int index = 0; index < 64; ++index) outcome_[index] = 0;
        const int pair_count = (shared_.unit.page_count + 1) / 2;
        if (pair_count == 0) return;
        if (group_ == 0) pass_turn_to(0);
        Turn k_turn, v_turn;
        wait_for(shared_.k_full, k_turn);
        wgmma_fence();
        multiply_keys(k_turn.stage);
        wgmma_wait<0>();
        hold_registers(scores_);
        finish_keys(k_turn);
        weigh();
        pack_weights();
        for (int pair = 1; pair < pair_count; ++pair) {
            k_turn.next();
            wait_for(shared_.k_full, k_turn);
            wait_for(shared_.v_full, v_turn);
            if (shared_.has_unused[v_turn.stage]) clear_unused_values(v_turn.stage);
            named_barrier_wait(2 + group_, 256);
            hold_registers(scores_);
            hold_registers(outcome_);
            wgmma_fence();
            multiply_keys(k_turn.stage);
            multiply_values(v_turn.stage, pair > 1);
            pass_turn_to(1 - group_);
            wgmma_wait<1>();
            hold_registers(scores_);
            finish_keys(k_turn);
            weigh();
            wgmma_wait<0>();
            hold_registers(outcome_);
            leave(shared_.v_free, v_turn);
            rescale();
            pack_weights();
            v_turn.next();
        }
        wait_for(shared_.v_full, v_turn);
        if (shared_.has_unused[v_turn.stage]) clear_unused_values(v_turn.stage);
        hold_registers(outcome_);
        wgmma_fence();
        multiply_values(v_turn.stage, pair_count > 1);
        wgmma_wait<0>();
        hold_registers(outcome_);
        if (group_ == 0) named_barrier_wait(2, 256);
    }

    __device__ __forceinline__ void write(const WriteOutputs<Variant>& finish) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float sum = sum_[half];
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            const int row = first_row() + 8 * half;
            if (row >= shared_.unit.row_count) continue;
            const std::size_t output_row = row_of_unit(arguments_, shared_.unit, row);
#pragma unroll
            for (int tile = 0; tile < kColumnTiles; ++tile) {
                finish.take_pair(output_row, tile * 8 + 2 * (static_cast<int>(threadIdx.x) % 4),
                                 {outcome_[4 * tile + 2 * half], outcome_[4 * tile + 2 * half + 1]}, origin_[half],
                                 sum);
            }
        }
    }

  private:
    // Of the unit: the first of this thread's two.
    __device__ __forceinline__ int first_row() const {
        const int thread = static_cast<int>(threadIdx.x) % 128;
        return group_ * 64 + thread / 32 * 16 + thread % 32 / 4;
    }
    __device__ __forceinline__ void pass_turn_to(int group) const {
        named_barrier_arrive(2 + group, 256);
    }
    __device__ __forceinline__ void wait_for(std::uint64_t (&barriers)[PrefillShared::kStages],
                                             const Turn& turn) const {
        barrier_wait(shared_address(&barriers[turn.stage]), turn.parity);
    }
    __device__ __forceinline__ void leave(std::uint64_t (&barriers)[PrefillShared::kStages], const Turn& turn) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&barriers[turn.stage]));
    }

    __device__ __forceinline__ void multiply_keys(int stage) {
        const std::uint32_t k_tile = ring_ + stage * 2 * Variant::kTileBytes;
        const std::uint32_t q_rows = ring_ - Variant::kTileBytes + group_ * 64 * 128;
#pragma unroll
        for (int step = 0; step < 8; ++step) {
            const std::uint32_t at = step / 4 * Variant::kHalfBytes + step % 4 * 32;
            multiply_shared<Element>(scores_, matrix_descriptor({q_rows + at, 16, 1024}),
                                     matrix_descriptor({k_tile + at, 16, 1024}), step > 0);
        }
        wgmma_commit();
    }

    __device__ __forceinline__ void multiply_values(int stage, bool adds) {
        const std::uint32_t v_tile = ring_ + stage * 2 * Variant::kTileBytes + Variant::kTileBytes;
#pragma unroll
        for (int step = 0; step < 8; ++step) {
            multiply_registers<Element>(outcome_, weights_[step],
                                        matrix_descriptor({v_tile + step * 2048, Variant::kHalfBytes, 1024}),
                                        step > 0 || adds);
        }
        wgmma_commit();
    }

    // Slots without a token hold anything; a weight of 0 would not keep a NaN out. Both groups write the same zeros.
    __device__ __forceinline__ void clear_unused_values(int stage) const {
        const int counts[2] = {shared_.value_counts[stage][0], shared_.value_counts[stage][1]};
        const std::uint32_t v_tile = ring_ + stage * 2 * Variant::kTileBytes + Variant::kTileBytes;
        const int chunk = threadIdx.x % 8;
        for (int token = static_cast<int>(threadIdx.x % 128) / 8; token < Variant::kTokens; token += 16) {
            if (token % kPageTokens < (token < kPageTokens ? counts[0] : counts[1])) continue;
            for (int half = 0; half < 2; ++half) {
                shared_clear(v_tile + half * Variant::kHalfBytes + token * 128 + chunk * 16);
            }
        }
        shared_writes_fence();
        named_barrier_wait(4 + group_, 128);
    }

    // Scores are there: caps and hides them, and lets the next K come.
    __device__ __forceinline__ void finish_keys(const Turn& turn) {
        if (arguments_.cap_inner > 0) {
#pragma unroll
            for (int index = 0; index < 64; ++index) scores_[index] = capped(scores_[index], arguments_);
        }
        if (shared_.hides[turn.stage]) {
            hide<0>(shared_.masks[turn.stage][0]);
            hide<1>(shared_.masks[turn.stage][1]);
        }
        leave(shared_.k_free, turn);
    }

    // Makes weights of the scores, and follows the maximum.
    __device__ __forceinline__ void weigh() {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float highest = scores_[2 * half];
#pragma unroll
            for (int tile = 0; tile < kColumnTiles; ++tile) {
                highest = fmaxf(highest, fmaxf(scores_[4 * tile + 2 * half], scores_[4 * tile + 2 * half + 1]));
            }
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            const float moved = fmaxf(origin_[half], highest * arguments_.scale_log2 - Element::kOriginBelowMaximum);
            factor_[half] = exp2_fast(origin_[half] - moved);
            origin_[half] = moved;
            sum_[half] *= factor_[half];
#pragma unroll
            for (int tile = 0; tile < kColumnTiles; ++tile) {
                float& first = scores_[4 * tile + 2 * half];
                float& second = scores_[4 * tile + 2 * half + 1];
                first = exp2_fast(fmaf(first, arguments_.scale_log2, -moved));
                second = exp2_fast(fmaf(second, arguments_.scale_log2, -moved));
                sum_[half] += first + second;
            }
        }
    }

    template <int kPage>
    __device__ __forceinline__ void hide(const SliceMask& in_shared) {
        const int sinks = in_shared.sinks;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int end = min(in_shared.held, in_shared.end + query_[half]), first = in_shared.first + query_[half];
#pragma unroll
            for (int element = 0; element < kColumnTiles; ++element) {  // two to a column tile
                const int slot = element / 2 * 8 + element % 2 + 2 * (static_cast<int>(threadIdx.x) % 4);
                float& score = scores_[4 * (kPage * kColumnTiles / 2 + element / 2) + 2 * half + element % 2];
                if (slot >= end || (slot < first && slot >= sinks)) score = -CUDART_INF_F;
            }
        }
    }

    __device__ __forceinline__ void rescale() {
#pragma unroll
        for (int tile = 0; tile < kColumnTiles; ++tile) {
#pragma unroll
            for (int element = 0; element < 4; ++element) outcome_[4 * tile + element] *= factor_[element / 2];
        }
    }

    __device__ __forceinline__ void pack_weights() {
#pragma unroll
        for (int step = 0; step < 8; ++step) {
#pragma unroll
            for (int pair = 0; pair < 4; ++pair) {
                weights_[step][pair] = Element::pack(scores_[8 * step + 2 * pair], scores_[8 * step + 2 * pair + 1]);
            }
        }
    }

    const DecodeArguments& arguments_;
    PrefillShared& shared_;
    int group_;
    std::uint32_t ring_;
    int query_[2];  // of this thread's rows
    float scores_[64];
    float outcome_[64];
    std::uint32_t weights_[8][4];
    float origin_[2], factor_[2], sum_[2];
};

// q as the tensor cores read it; rows that the unit lacks are 0. By the two groups that compute.
template <class Variant>
__device__ __forceinline__ void load_chunk_queries(const DecodeArguments& arguments, const DecodeUnit& unit,
                                                   std::byte* memory) {
    constexpr int kChunksPerRow = Variant::kHeadDim / 8;
    for (int index = threadIdx.x - 128; index < Variant::kRows * kChunksPerRow; index += 256) {
        const int row = index / kChunksPerRow, chunk = index % kChunksPerRow;
        uint4 words = {0, 0, 0, 0};
        if (row < unit.row_count) {
            const std::size_t at = row_of_unit(arguments, unit, row) * kChunksPerRow + chunk;
            words = static_cast<const uint4*>(arguments.q)[at];
        }
        const int place = chunk / 8 * Variant::kHalfBytes + row * 128 + (chunk % 8 ^ row % 8) * 16;
        *reinterpret_cast<uint4*>(memory + place) = words;
    }
    shared_writes_fence();
    named_barrier_wait(1, 256);
}

// Blocks of one KV head are neighbours, the longest first: they read the same pages at about the same time.
template <class Variant>
__global__ __launch_bounds__(Variant::kThreads, 1) void prefill_block(const __grid_constant__ GeneralDecode work) {
    extern __shared__ __align__(1024) std::byte memory[];
    __shared__ PrefillShared shared;
    const int chunk_count = work.shape.chunks_per_stream(), stream = blockIdx.x / chunk_count;
    if (threadIdx.x == 0) {
        const int kv_heads = work.shape.heads.kv_heads;
        const UnitPlace place{stream / kv_heads, stream % kv_heads,
                              chunk_count - 1 - static_cast<int>(blockIdx.x) % chunk_count};
        const PageList list = work.lists[stream];
        shared.unit = make_unit_of(work.shape, Variant::kRows, work.items[place.item], list,
                                   work.arguments.entries + list.at_layer(work.arguments.kv_layer), place);
        for (int stage = 0; stage < PrefillShared::kStages; ++stage) {
            barrier_init(shared_address(&shared.k_full[stage]), 1);
            barrier_init(shared_address(&shared.v_full[stage]), 1);
            barrier_init(shared_address(&shared.k_free[stage]), 8);  // the warps that compute
            barrier_init(shared_address(&shared.v_free[stage]), 8);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (shared.unit.row_count == 0) return;
    const std::uint32_t ring = shared_address(memory) + Variant::kTileBytes;
    if (threadIdx.x < 128) {
        give_back_registers<24>();
        if (threadIdx.x == 0) PrefillCopies<Variant>(work.arguments, shared, ring).run();
    } else {
        take_registers<240>();
        load_chunk_queries<Variant>(work.arguments, shared.unit, memory);
        PrefillRows<Variant> rows(work.arguments, shared, ring, static_cast<int>(threadIdx.x) / 128 - 1);
        rows.run();
        rows.write({work.arguments.outputs});
    }
}

template <class Element>
void launch_prefill(const GeneralDecode& work, Stream stream) {
    using Variant = PrefillVariant<Element>;
    const auto kernel = prefill_block<Variant>;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Variant::kSharedBytes),
               "cudaFuncSetAttribute of prefill_block");
    const int block_count = work.item_count * work.shape.heads.kv_heads * work.shape.chunks_per_stream();
    kernel<<<block_count, Variant::kThreads, Variant::kSharedBytes, stream>>>(work);
    check_launch("prefill_block");
}

}  // namespace kvgrid::kernels
