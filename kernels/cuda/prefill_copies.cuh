#pragma once

#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/prefill_schedule.h"
#include "kernels/cuda/prefill_variant.cuh"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

template <class Variant>
struct PrefillShared {
    std::uint64_t k_full[Variant::kStages], v_full[Variant::kStages];
    std::uint64_t k_free[Variant::kStages], v_free[Variant::kStages];
    PrefillBlock block;

    // By one thread, before all others.
    __device__ void init() {
        constexpr int kReaders = Variant::kComputing / 32;  // each warp says for itself that it is done
        for (int stage = 0; stage < Variant::kStages; ++stage) {
            barrier_init(shared_address(&k_full[stage]), 1);
            barrier_init(shared_address(&v_full[stage]), 1);
            barrier_init(shared_address(&k_free[stage]), kReaders);
            barrier_init(shared_address(&v_free[stage]), kReaders);
        }
        barrier_init_fence();
    }
};

// The warp that copies K and V. Its lanes know the pages of 32 positions, and fetch the next 32 while those are copied, so that no copy
// waits for a page's number; its first lane waits and copies.
template <class Variant>
class PrefillCopies {
  public:
    __device__ PrefillCopies(const DecodeArguments& arguments, PrefillShared<Variant>& shared, std::uint32_t ring)
        : arguments_(arguments), shared_(shared), ring_(ring), lane_(threadIdx.x % 32) {}

    __device__ void run() {
        const int last = shared_.block.step_count(Variant::kPages) - 1;
        PrefillTurn<Variant> turn;
        std::uint32_t pages[Variant::kPages];
        for (int step = last; step >= 0; --step, turn.next()) {
            find_pages(step, last, pages);
            if (lane_ == 0) copy(pages, turn);
            __syncwarp();
        }
    }

  private:
    __device__ __forceinline__ std::uint32_t page_of_lane(int window) const {
        const int position = min(shared_.block.first_page + window * 32 + lane_, shared_.block.end_page - 1);
        if (window < 0) return 0;
        return arguments_.entries[shared_.block.unit.page_at(position, arguments_.kv_layer)].page;
    }

    // Where a step that lacks its second page has the first one twice: finite, and seen by nobody.
    __device__ __forceinline__ void find_pages(int step, int last, std::uint32_t (&pages)[Variant::kPages]) {
        const int in_window = step % Variant::kWindowSteps;
        if (step == last) older_indices_ = page_of_lane(step / Variant::kWindowSteps);
        if (step == last || in_window == Variant::kWindowSteps - 1) {
            indices_ = older_indices_;
            older_indices_ = page_of_lane(step / Variant::kWindowSteps - 1);
        }
#pragma unroll
        for (int page = 0; page < Variant::kPages; ++page) {
            pages[page] = __shfl_sync(~0u, indices_, in_window * Variant::kPages + page);
        }
    }

    __device__ __forceinline__ void copy(const std::uint32_t (&pages)[Variant::kPages],
                                         const PrefillTurn<Variant>& turn) const {
        const std::uint32_t k_tile = ring_ + turn.stage * 2 * Variant::kTileBytes;
        barrier_wait(shared_address(&shared_.k_free[turn.stage]), turn.parity ^ 1);
        copy_blocks(pages, 0, k_tile, shared_address(&shared_.k_full[turn.stage]));
        barrier_wait(shared_address(&shared_.v_free[turn.stage]), turn.parity ^ 1);
        copy_blocks(pages, Variant::kBlockBytes, k_tile + Variant::kTileBytes,
                    shared_address(&shared_.v_full[turn.stage]));
    }

    // Of the pages, the block that begins at `in_page`.
    __device__ __forceinline__ void copy_blocks(const std::uint32_t (&pages)[Variant::kPages], int in_page,
                                                std::uint32_t tile, std::uint32_t barrier) const {
        barrier_arrive_expect(barrier, Variant::kTileBytes);
#pragma unroll
        for (int page = 0; page < Variant::kPages; ++page) {
            const std::byte* const block = arguments_.slab + pages[page] * arguments_.page_bytes + in_page;
#pragma unroll
            for (int panel = 0; panel < Variant::kPanels; ++panel) {
                const std::uint32_t bytes = kPageTokens * Variant::panel_width(panel);
                const std::uint32_t to = tile + Variant::panel_in_tile(panel) + page * bytes;
                bulk_copy({to, block + DevicePageLayout::panel_offset(panel), bytes}, barrier);
            }
        }
    }

    const DecodeArguments& arguments_;
    PrefillShared<Variant>& shared_;
    std::uint32_t ring_;
    int lane_;
    std::uint32_t indices_ = 0, older_indices_ = 0;  // of the pages of this window and the next, one to a lane
};

}  // namespace kvgrid::kernels
