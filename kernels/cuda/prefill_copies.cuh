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

    __device__ void run() const {
        const int last = shared_.block.step_count(Variant::kPages) - 1;
        std::uint32_t pages = page_of_lane(last / Variant::kWindowSteps), older_pages = 0;
        PrefillTurn<Variant> turn;
        for (int step = last; step >= 0; --step, turn.next()) {
            const int in_window = step % Variant::kWindowSteps;
            if (step == last || in_window == Variant::kWindowSteps - 1) {
                if (step != last) pages = older_pages;
                older_pages = page_of_lane(step / Variant::kWindowSteps - 1);
            }
            const std::byte* from[Variant::kPages];
#pragma unroll
            for (int page = 0; page < Variant::kPages; ++page) {
                const std::size_t index = __shfl_sync(~0u, pages, in_window * Variant::kPages + page);
                from[page] = arguments_.slab + index * arguments_.page_bytes;
            }
            if (lane_ == 0) copy(from, shared_.block.pages_of_step(step, Variant::kPages), turn);
            __syncwarp();
        }
    }

  private:
    __device__ __forceinline__ std::uint32_t page_of_lane(int window) const {
        const int position = shared_.block.first_page + window * 32 + lane_;
        if (window < 0 || position >= shared_.block.end_page) return 0;
        return arguments_.entries[shared_.block.unit.page_at(position, arguments_.kv_layer)].page;
    }

    __device__ __forceinline__ void copy(const std::byte* const (&from)[Variant::kPages], int page_count,
                                         const PrefillTurn<Variant>& turn) const {
        const std::uint32_t k_tile = ring_ + turn.stage * 2 * Variant::kTileBytes;
        barrier_wait(shared_address(&shared_.k_free[turn.stage]), turn.parity ^ 1);
        copy_blocks(from, page_count, k_tile, shared_address(&shared_.k_full[turn.stage]));
        const std::byte* values[Variant::kPages];
#pragma unroll
        for (int page = 0; page < Variant::kPages; ++page) values[page] = from[page] + Variant::kBlockBytes;
        barrier_wait(shared_address(&shared_.v_free[turn.stage]), turn.parity ^ 1);
        copy_blocks(values, page_count, k_tile + Variant::kTileBytes, shared_address(&shared_.v_full[turn.stage]));
    }

    // K or V of the step's pages.
    __device__ __forceinline__ void copy_blocks(const std::byte* const (&from)[Variant::kPages], int page_count,
                                                std::uint32_t tile, std::uint32_t barrier) const {
        barrier_arrive_expect(barrier, page_count * Variant::kBlockBytes);
#pragma unroll
        for (int panel = 0; panel < Variant::kPanels; ++panel) {
            const std::uint32_t bytes = kPageTokens * Variant::panel_width(panel);
#pragma unroll
            for (int page = 0; page < Variant::kPages; ++page) {
                if (page >= page_count) break;
                const std::byte* const source = from[page] + DevicePageLayout::panel_offset(panel);
                bulk_copy({tile + Variant::panel_in_tile(panel) + page * bytes, source, bytes}, barrier);
            }
        }
    }

    const DecodeArguments& arguments_;
    PrefillShared<Variant>& shared_;
    std::uint32_t ring_;
    int lane_;
};

}  // namespace kvgrid::kernels
