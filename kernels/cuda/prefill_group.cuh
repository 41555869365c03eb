#pragma once

#include "kernels/cuda/decode_finish.cuh"
#include "kernels/cuda/prefill_copies.cuh"
#include "kernels/cuda/prefill_masks.cuh"
#include "kernels/cuda/prefill_rows.cuh"

namespace kvgrid::kernels {

// One of the two warp groups that compute: walks the part's steps. Scores of a step are multiplied before the values of the one before, so
// that the tensor cores have work while the softmax runs.
template <class Variant>
class PrefillGroup {
    using Turn = PrefillTurn<Variant>;
    static constexpr int kAllHeld = -1;

  public:
    // `ring`: where the stages begin, behind q.
    __device__ __forceinline__ PrefillGroup(const DecodeArguments& arguments, PrefillShared<Variant>& shared,
                                            std::uint32_t ring, int group)
        : arguments_(arguments),
          shared_(shared),
          masks_(arguments, shared.block),
          group_(group),
          ring_(ring),
          rows_(arguments, shared.block.unit, first_row(group)) {}

    // Barrier 2 is group 0's turn at the tensor cores, barrier 3 is group 1's; group 0 begins, and takes back the turn that is left over.
    __device__ __forceinline__ void run() {
        const int last = shared_.block.step_count(Variant::kPages) - 1;
        if (last < 0) return;
        if (group_ == 0) pass_turn_to(0);
        masks_.load(last);
        Turn k_turn, v_turn;
        wait_for(shared_.k_full, k_turn);
        wgmma_fence();
        multiply_keys(k_turn);
        wgmma_wait<0>();
        finish_keys(k_turn, last);
        rows_.weigh(arguments_.scale_log2);
        rows_.pack_weights();
        for (int step = last - 1; step >= 0; --step) {
            k_turn.next();
            wait_for(shared_.k_full, k_turn);
            if (values_held_ != kAllHeld) clear_unused_values(v_turn);
            named_barrier_wait(2 + group_, Variant::kComputing);
            rows_.hold_scores();
            rows_.hold_outcome();
            wgmma_fence();
            multiply_keys(k_turn);
            wait_for(shared_.v_full, v_turn);
            multiply_values(v_turn, step + 1 < last);
            pass_turn_to(1 - group_);
            if (step % Variant::kWindowSteps == Variant::kWindowSteps - 1) masks_.load(step);
            wgmma_wait<1>();
            finish_keys(k_turn, step);
            const bool must_rescale = rows_.weigh(arguments_.scale_log2);
            wgmma_wait<0>();
            rows_.hold_outcome();
            leave(shared_.v_free, v_turn);
            if (must_rescale) rows_.rescale();
            rows_.pack_weights();
            v_turn.next();
        }
        if (values_held_ != kAllHeld) clear_unused_values(v_turn);
        wait_for(shared_.v_full, v_turn);
        rows_.hold_outcome();
        wgmma_fence();
        multiply_values(v_turn, last > 0);
        wgmma_wait<0>();
        rows_.hold_outcome();
        if (group_ == 0) named_barrier_wait(2, Variant::kComputing);
    }

    // What comes of the part: whole rows, or a partial for another block.
    __device__ __forceinline__ void finish() {
        const PrefillBlock& block = shared_.block;
        if (block.part_count > 1) {
            const PrefillParts parts = PrefillParts::of(block);
            for (int index = parts.begin; index < parts.end; ++index) rows_.merge(slot_of(parts.part_at(index)));
            if (!block.is_last_part()) {
                rows_.hand_over(slot_of(block.part));
                return;
            }
        }
        const WriteOutputs<Variant> outputs{arguments_.outputs};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first_row(group_) + 8 * half;
            const bool is_there = row < block.unit.row_count;
            const std::size_t output_row = row_of_unit(arguments_, block.unit, is_there ? row : 0);
            rows_.finish(half, [&](int dim, float2 pair, float origin, float sum) {
                if (is_there) outputs.take_pair(output_row, dim, pair, origin, sum);
            });
        }
    }

  private:
    // Of the unit: the first of this thread's two.
    static __device__ __forceinline__ int first_row(int group) {
        const int thread = static_cast<int>(threadIdx.x) % 128;
        return group * 64 + thread / 32 * 16 + thread % 32 / 4;
    }
    __device__ __forceinline__ PrefillSlot<Variant> slot_of(int part) const {
        return {arguments_.slots, shared_.block.slot_of(part)};
    }
    __device__ __forceinline__ void pass_turn_to(int group) const {
        named_barrier_arrive(2 + group, Variant::kComputing);
    }
    __device__ __forceinline__ void wait_for(std::uint64_t (&barriers)[Variant::kStages], const Turn& turn) const {
        barrier_wait(shared_address(&barriers[turn.stage]), turn.parity);
    }
    __device__ __forceinline__ void leave(std::uint64_t (&barriers)[Variant::kStages], const Turn& turn) const {
        if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&barriers[turn.stage]));
    }
    __device__ __forceinline__ std::uint32_t k_tile(const Turn& turn) const {
        return ring_ + turn.stage * 2 * Variant::kTileBytes;
    }
    __device__ __forceinline__ std::uint32_t v_tile(const Turn& turn) const {
        return k_tile(turn) + Variant::kTileBytes;
    }

    __device__ __forceinline__ void multiply_keys(const Turn& turn) {
        const std::uint32_t q = ring_ - Variant::kQueryBytes;
        rows_.multiply_keys(q, group_, k_tile(turn));
    }
    __device__ __forceinline__ void multiply_values(const Turn& turn, bool adds) {
        rows_.multiply_values(v_tile(turn), adds);
    }

    // Scores are there: lets the next K come, caps and hides them, and keeps what V of the step must know.
    __device__ __forceinline__ void finish_keys(const Turn& turn, int step) {
        rows_.hold_scores();
        leave(shared_.k_free, turn);
        if (arguments_.cap_inner > 0) rows_.cap(arguments_);
        values_held_ = kAllHeld;
        if (masks_.hides(step)) hide(step);
    }
    __device__ __forceinline__ void hide(int step) {
        const SliceMask first = masks_.mask(step, 0);
        rows_.template hide<0>(first);
        int held = first.held;
        if constexpr (Variant::kPages == 2) {
            const SliceMask second = masks_.mask(step, 1);
            rows_.template hide<1>(second);
            held |= second.held << 16;
        }
        constexpr int kWhole = Variant::kPages == 2 ? kPageTokens << 16 | kPageTokens : kPageTokens;
        if (held != kWhole) values_held_ = held;
    }

    // Slots without a token hold anything; a weight of 0 would not keep a NaN out. Both groups write the same zeros.
    __device__ __forceinline__ void clear_unused_values(const Turn& turn) const {
        wait_for(shared_.v_full, turn);
#pragma unroll
        for (int panel = 0; panel < Variant::kPanels; ++panel) {
            const int width = Variant::panel_width(panel), chunks = width / 16;
            const std::uint32_t at = v_tile(turn) + Variant::panel_in_tile(panel);
            for (int index = threadIdx.x % 128; index < Variant::kTokens * chunks; index += 128) {
                const int token = index / chunks;
                const int held = token < kPageTokens ? values_held_ & 0xffff : values_held_ >> 16;
                if (token % kPageTokens >= held) shared_clear(at + index * 16);
            }
        }
        shared_writes_fence();
        named_barrier_wait(4 + group_, 128);
    }

    const DecodeArguments& arguments_;
    PrefillShared<Variant>& shared_;
    PrefillMasks<Variant> masks_;
    int group_;
    std::uint32_t ring_;
    int values_held_ = kAllHeld;  // tokens of both pages, where some slot holds none
    PrefillRows<Variant> rows_;
};

}  // namespace kvgrid::kernels
