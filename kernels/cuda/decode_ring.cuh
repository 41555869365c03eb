#pragma once

#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/decode_queries.cuh"
#include "kernels/cuda/decode_unit.cuh"
#include "kernels/cuda/decode_variant.cuh"

namespace kvgrid::kernels {

// The units that a block walks, in order.
class Segments {
  public:
    __device__ Segments(const DecodeBlock& block, const DecodeUnit* units)
        : units_(units),
          unit_(block.first),
          index_(block.unit),
          page_(block.page),
          end_index_(block.end_unit),
          end_page_(block.end_page) {}

    __device__ bool at_end() const { return index_ == end_index_ ? page_ >= end_page_ : index_ > end_index_; }
    // Only where not at the end.
    __device__ const DecodeUnit& unit() const { return unit_; }
    __device__ int index() const { return index_; }
    __device__ int first_page() const { return page_; }
    __device__ int end_page() const { return index_ == end_index_ ? end_page_ : unit_.page_count; }
    // Nothing follows this unit.
    __device__ bool is_last() const { return index_ == end_index_ || (index_ + 1 == end_index_ && end_page_ == 0); }
    __device__ bool ends_unit() const { return index_ != end_index_; }

    __device__ void next() {
        ++index_;
        page_ = 0;
        if (!at_end()) unit_ = units_[index_];
    }

    // So that next() finds its unit near by.
    __device__ void prefetch_next() const {
        if (!is_last()) prefetch(units_ + index_ + 1);
    }

  private:
    const DecodeUnit* units_;
    DecodeUnit unit_;
    int index_, page_;
    int end_index_, end_page_;
};

// A slice in shared memory.
struct Slice {
    std::uint32_t k, v;
    PageScales scales;
};

// One warp's copies: a ring of stages, filled by its first lane far ahead of the arithmetic, over all units of the block. The warps of a
// block take the slices in turn, counted through all units, so that each has as many as the others.
template <class Variant>
class SliceRing {
  public:
    struct Shared {
        std::uint64_t full[Variant::kStages];
        SliceTokens tokens[Variant::kStages];
    };

    // Called by all lanes; `memory` is this warp's part of the ring.
    __device__ SliceRing(const DecodeArguments& arguments, const Segments& begin, std::byte* memory, Shared& shared)
        : arguments_(arguments),
          segments_(begin),
          shared_(shared),
          memory_(shared_address(memory)),
          policy_(evict_first_policy()),
          lane_(threadIdx.x % 32),
          slice_(threadIdx.x / 32) {
        if (lane_ == 0) {
            for (std::uint64_t& barrier : shared_.full) barrier_init(shared_address(&barrier), 1);
            barrier_init_fence();
        }
        __syncwarp();
        if (!segments_.at_end()) open();
        find_entry();
    }

    // Starts the copies of the next slice, if there is one, into a stage that no lane reads any more.
    __device__ __forceinline__ void fill(int stage) {
        if (segments_.at_end()) return;
        if (lane_ == 0) copy(stage);
        slice_ += Variant::kWarps;
        find_entry();
    }

    __device__ __forceinline__ void wait(int stage, std::uint32_t parity) const {
        barrier_wait(shared_address(&shared_.full[stage]), parity);
    }
    // The queries of the unit that the arithmetic has come to; asked for again where copies are more than a unit ahead.
    __device__ __forceinline__ typename UnitQueries<Variant>::Asked queries(const Segments& at) const {
        const bool has_asked = !UnitQueries<Variant>::kAskedHasWords || asked_unit_ == at.index();
        return has_asked ? asked_ : UnitQueries<Variant>::ask(arguments_, at.unit());
    }
    // Only where tokens are held.
    __device__ __forceinline__ Slice slice(int stage) const {
        const std::uint32_t k = stage_at(stage);
        Slice slice = {k, k + Variant::kSliceBytes, {1, 1}};
        if constexpr (Variant::Kv::kHasScales) slice.scales = load_scales(k + Variant::kTrailerInStage);
        return slice;
    }
    __device__ __forceinline__ SliceTokens tokens(int stage) const { return shared_.tokens[stage]; }

  private:
    __device__ __forceinline__ std::uint32_t stage_at(int stage) const {
        return memory_ + stage * Variant::kStageBytes;
    }
    static __device__ __forceinline__ PageScales load_scales(std::uint32_t address) {
        PageScales scales;
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(scales.k), "=f"(scales.v) : "r"(address) : "memory");
        return scales;
    }

    // Copies run ahead of the arithmetic: what that will load from memory when it comes to this unit, and what the copies of the next one
    // begin with, is on its way by then.
    __device__ __forceinline__ void open() {
        segments_.prefetch_next();
        asked_ = UnitQueries<Variant>::ask(arguments_, segments_.unit());
        asked_unit_ = segments_.index();
        slice_count_ = (segments_.end_page() - segments_.first_page()) * Variant::kSlicesPerPage;
    }

    // Reads the page entry one slice ahead of its copies.
    __device__ __forceinline__ void find_entry() {
        while (!segments_.at_end() && slice_ >= slice_count_) {
            segments_.next();
            slice_ -= slice_count_;
            if (!segments_.at_end()) open();
        }
        if (segments_.at_end()) return;
        const int page = segments_.first_page() + slice_ / Variant::kSlicesPerPage;
        entry_ = arguments_.entries[segments_.unit().page_at(page, arguments_.kv_layer)];
    }

    __device__ __forceinline__ void copy(int stage) {
        const std::uint32_t barrier = shared_address(&shared_.full[stage]);
        const int slot = slice_ % Variant::kSlicesPerPage * Variant::kSliceTokens;
        const int count = static_cast<int>(entry_.token_count) - slot;
        shared_.tokens[stage] = {entry_.first_token + slot, count};
        barrier_arrive_expect(barrier, count > 0 ? Variant::kCopyBytes : 0);
        if (count <= 0) return;
        const std::byte* const page = arguments_.slab + entry_.page * arguments_.page_bytes;
        if constexpr (Variant::kSlicesPerPage == 1) {
            bulk_copy({stage_at(stage), page, Variant::kCopyBytes}, barrier, policy_);
        } else {
            copy_parts(stage_at(stage), page, slot, barrier);
        }
    }

    __device__ __forceinline__ void copy_parts(std::uint32_t stage, const std::byte* page, int slot,
                                               std::uint32_t barrier) const {
        for (int block = 0; block < 2; ++block) {
#pragma unroll
            for (int panel = 0; panel < Variant::kPanels; ++panel) {
                const int width = Variant::panel_width(panel);
                const std::size_t from =
                    block * Variant::layout().block_bytes() + DevicePageLayout::panel_offset(panel) + slot * width;
                const std::uint32_t to = stage + block * Variant::kSliceBytes + Variant::panel_in_slice(panel);
                const std::uint32_t bytes = Variant::kSliceTokens * width;
                bulk_copy({to, page + from, bytes}, barrier, policy_);
            }
        }
        if constexpr (Variant::Kv::kHasScales) {
            const std::byte* const scales = page + Variant::layout().trailer_offset();
            bulk_copy({stage + Variant::kTrailerInStage, scales, Variant::kScalesCopyBytes}, barrier, policy_);
        }
    }

    const DecodeArguments& arguments_;
    Segments segments_;
    Shared& shared_;
    std::uint32_t memory_;
    std::uint64_t policy_;
    int lane_;
    int slice_;  // the next one to be copied, within the segment
    int slice_count_ = 0;
    PageEntry entry_;  // its page
    typename UnitQueries<Variant>::Asked asked_;
    int asked_unit_ = -1;
};

}  // namespace kvgrid::kernels
