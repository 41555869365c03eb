#pragma once

#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/decode_unit.cuh"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// A chunk of new tokens: 128 rows (new token, query head of a group) against their stream's visible pages, two pages at a time, from the
// newest to the oldest. One warp group copies, two compute 64 rows each and take turns at the tensor cores: while one multiplies, the other
// does its softmax.
//
//   shared memory   q [dim half][128 rows][128 bytes], then stages of {K, V}, each [dim half][128 tokens][128 bytes]: the pages' own panels
template <class ElementOf>
struct PrefillVariant {
    using Element = ElementOf;
    static constexpr int kHeadDim = 128;
    static constexpr int kRows = DecodeShape::kChunkRows;
    static constexpr int kTokens = 2 * kPageTokens;
    static constexpr int kStages = 2;
    static constexpr int kThreads = 3 * 128;
    static constexpr int kHalfBytes = 128 * 128;  // of the rows or tokens: 64 dims of each
    static constexpr int kTileBytes = 2 * kHalfBytes;
    static constexpr int kPanelBytes = kPageTokens * DevicePageLayout::kPanelBytes;
    static constexpr int kSharedBytes = kTileBytes + kStages * 2 * kTileBytes;
};

struct PrefillShared {
    static constexpr int kStages = PrefillVariant<Bf16>::kStages;
    std::uint64_t k_full[kStages], v_full[kStages], k_free[kStages], v_free[kStages];
    // Of the two pages, as long as K is there: what rows see of them, and whether any row does not see all.
    SliceMask masks[kStages][2];
    int hides[kStages];
    // As long as V is there: the tokens that they hold, and whether there are slots without one.
    int value_counts[kStages][2];
    int has_unused[kStages];
    DecodeUnit unit;
};

// A stage of the ring, and how often it has come round.
struct Turn {
    int stage = 0;
    std::uint32_t parity = 0;

    __device__ __forceinline__ void next() {
        if (++stage < PrefillShared::kStages) return;
        stage = 0;
        parity ^= 1;
    }
};

// The warp group that copies; one thread of it.
template <class Variant>
class PrefillCopies {
  public:
    __device__ PrefillCopies(const DecodeArguments& arguments, PrefillShared& shared, std::uint32_t ring)
        : arguments_(arguments), shared_(shared), ring_(ring) {}

    __device__ void run() const {
        Turn turn;
        for (int pair = (shared_.unit.page_count + 1) / 2 - 1; pair >= 0; --pair, turn.next()) {
            const PageEntry entries[2] = {entry_at(2 * pair), entry_at(2 * pair + 1)};
            const std::uint32_t k_tile = ring_ + turn.stage * 2 * Variant::kTileBytes;
            barrier_wait(shared_address(&shared_.k_free[turn.stage]), turn.parity ^ 1);
            describe_keys(turn.stage, entries);
            copy(entries, 0, k_tile, shared_address(&shared_.k_full[turn.stage]));
            barrier_wait(shared_address(&shared_.v_free[turn.stage]), turn.parity ^ 1);
            describe_values(turn.stage, entries);
            copy(entries, 1, k_tile + Variant::kTileBytes, shared_address(&shared_.v_full[turn.stage]));
        }
    }

  private:
    __device__ void describe_keys(int stage, const PageEntry (&entries)[2]) const {
        bool hides = false;
#pragma unroll
        for (int page = 0; page < 2; ++page) {
            const SliceTokens tokens = {entries[page].first_token, static_cast<int>(entries[page].token_count)};
            const SliceMask mask = mask_of(shared_.unit, tokens, arguments_.group, arguments_.strictly_earlier);
            shared_.masks[stage][page] = mask;
            hides |= !mask.sees_all(kPageTokens);
        }
        shared_.hides[stage] = hides;
    }
    __device__ void describe_values(int stage, const PageEntry (&entries)[2]) const {
        bool has_unused = false;
#pragma unroll
        for (int page = 0; page < 2; ++page) {
            shared_.value_counts[stage][page] = static_cast<int>(entries[page].token_count);
            has_unused |= entries[page].token_count < kPageTokens;
        }
        shared_.has_unused[stage] = has_unused;
    }

    // Behind the last page: one without tokens.
    __device__ PageEntry entry_at(int position) const {
        if (position >= shared_.unit.page_count) return {0, 0, 0};
        return arguments_.entries[shared_.unit.page_at(position, arguments_.kv_layer)];
    }

    // K (block 0) or V (block 1) of both pages.
    __device__ void copy(const PageEntry (&entries)[2], int block, std::uint32_t tile, std::uint32_t barrier) const {
        constexpr std::uint32_t kPageBytes = 2 * Variant::kPanelBytes;
        const int page_count = entries[1].token_count > 0 ? 2 : 1;
        barrier_arrive_expect(barrier, page_count * kPageBytes);
#pragma unroll
        for (int page = 0; page < 2; ++page) {
            if (page >= page_count) break;
            const std::byte* const from =
                arguments_.slab + entries[page].page * arguments_.page_bytes + block * kPageBytes;
            for (int half = 0; half < 2; ++half) {
                const std::uint32_t to = tile + half * Variant::kHalfBytes + page * Variant::kPanelBytes;
                bulk_copy({to, from + half * Variant::kPanelBytes, Variant::kPanelBytes}, barrier);
            }
        }
    }

    const DecodeArguments& arguments_;
    PrefillShared& shared_;
    std::uint32_t ring_;
};

}  // namespace kvgrid::kernels
