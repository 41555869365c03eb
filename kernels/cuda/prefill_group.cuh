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
        : arguments_(arguments), shared_(shared), masks_(arguments, shared.block), group_(group), ring_(ring) {}

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
#pragma unroll
        for (int half = 0; half < 2; ++half) write_row(half);
    }

  private:
    // By all lanes, also where the block lacks the row.
    __device__ __forceinline__ void write_row(int half) const {
        const DecodeOutputs& outputs = arguments_.outputs;
        const DecodeUnit& unit = shared_.block.unit;
        const int row = first_row(group_) + 8 * half;
        const bool is_there = row < unit.row_count;
        const std::size_t output_row = row_of_unit(arguments_, unit, is_there ? row : 0);
        const std::size_t at = output_row * Variant::kHeadDim;
        const float sum = rows_.row_sum(half), inverse = sum == 0 ? 0 : 1 / sum;
        if (outputs.rounded != nullptr) {
            auto* const rounded = static_cast<std::uint16_t*>(outputs.rounded) + at;
            rows_.for_each_packed(half, inverse, [&](int dim, const uint4& words) {
                if (is_there) *reinterpret_cast<uint4*>(rounded + dim) = words;
            });
        }
        if (outputs.partial != nullptr && is_there) {
            rows_.for_each_pair(half, inverse, [&](int dim, float2 both) {
                *reinterpret_cast<float2*>(outputs.partial + at + dim) = both;
            });
        }
        if (outputs.lse != nullptr && is_there && threadIdx.x % 4 == 0) {
            outputs.lse[output_row] = FinishRows<Variant>::lse_of(rows_.origin(half), sum);
        }
    }

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
        const int row = shared_.block.unit.first_head + first_row(group_);
        const int queries[2] = {row / arguments_.group, (row + 8) / arguments_.group};
        const SliceMask first = masks_.mask(step, 0);
        rows_.template hide<0>(first, queries);
        if (first.held < kPageTokens) values_held_ = first.held;
        if constexpr (Variant::kPages == 2) {
            const SliceMask second = masks_.mask(step, 1);
            rows_.template hide<1>(second, queries);
            const bool is_there = second.held > 0;  // otherwise the first page lies there again
            const int held = is_there ? second.held : first.held;
            if (first.held < kPageTokens || held < kPageTokens) values_held_ = first.held | held << 16;
        }
    }

    // Slots without a token hold anything; a weight of 0 would not keep a NaN out. Both groups write the same zeros, each by the threads that
    // say afterwards that their warps are done with the stage.
    __device__ __forceinline__ void clear_unused_values(const Turn& turn) const {
        wait_for(shared_.v_full, turn);
        if (threadIdx.x % 32 == 0) {
            const int warp = threadIdx.x % 128 / 32;
#pragma unroll
            for (int panel = 0; panel < Variant::kPanels; ++panel) {
                const int width = Variant::panel_width(panel), chunks = width / 16;
                const std::uint32_t at = v_tile(turn) + Variant::panel_in_tile(panel);
                for (int token = warp; token < Variant::kTokens; token += 4) {
                    const int held = token < kPageTokens ? values_held_ & 0xffff : values_held_ >> 16;
                    if (token % kPageTokens < held) continue;
                    for (int chunk = 0; chunk < chunks; ++chunk) shared_clear(at + token * width + chunk * 16);
                }
            }
            shared_writes_fence();
        }
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
