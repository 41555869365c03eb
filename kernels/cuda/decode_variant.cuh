#pragma once

#include "core/page_tokens.h"
#include "kernels/cuda/decode_kv.cuh"
#include "kernels/cuda/device_page_layout.h"

namespace kvgrid::kernels {

// What a warp takes at a time, and how it waits for it. Warps: as many as the outcomes of all of them leave room for beside the rings.
struct RingShape {
    int slice_tokens, warps, stages;
};

constexpr RingShape plain_ring_of(int head_dim, int unit_rows) {
    const int tokens = head_dim <= 64 ? 64 : (head_dim <= 128 ? 32 : 16);
    if (unit_rows > 16) return {tokens / 2, head_dim == 128 ? 4 : 5, 4};
    if (head_dim == 96) return {tokens, unit_rows <= 8 ? 7 : 6, 2};
    return {tokens, head_dim > 128 && unit_rows > 8 ? 4 : 5, 2};
}

// Half of the bytes and as much arithmetic: more warps, which cover for each other, so that one stage each is best. A whole page is one copy.
constexpr RingShape fp8_ring_of(int head_dim, int unit_rows) {
    if (head_dim > 128) return {32, unit_rows > 8 ? 6 : 8, 1};
    if (unit_rows > 16) return {32, 8, head_dim <= 64 ? 2 : 1};
    if (head_dim > 64) return {64, 8, 1};
    return unit_rows > 8 ? RingShape{64, 8, 2} : RingShape{64, 12, 1};
}

// How a decode kernel uses an SM. A slice is what a warp takes at a time: kSliceTokens tokens of K and of V.
//
//   shared memory   ring of warp 0: [stage][K slice | V slice | scales], of warp 1, ...; the outcomes of the warps; q, if many rows share a unit
//
// Some 160 KB in flight keep memory busy; more slow down blocks of many short units beside blocks of a long one.
template <int kHeadDimOf, class ElementOf, int kUnitRowsOf, class KvOf>
struct DecodeVariant {
    using Element = ElementOf;  // of q and o
    using Kv = KvOf;
    using Math = typename Kv::Math;
    static constexpr int kHeadDim = kHeadDimOf;
    static constexpr int kUnitRows = kUnitRowsOf;

    static constexpr RingShape kRing =
        Kv::kHasScales ? fp8_ring_of(kHeadDim, kUnitRows) : plain_ring_of(kHeadDim, kUnitRows);
    static constexpr int kSliceTokens = kRing.slice_tokens;
    static constexpr int kWarps = kRing.warps;
    static constexpr int kStages = kRing.stages;
    static constexpr int kThreads = 32 * kWarps;

    static constexpr DevicePageLayout layout() { return DevicePageLayout::of(kHeadDim, Dtype::bf16, Kv::kDtype); }
    static constexpr int kPanels = layout().panel_count();
    static constexpr int kSliceBytes = kSliceTokens * layout().row_bytes;  // of K, and of V
    static constexpr int kTrailerInStage = 2 * kSliceBytes;
    static constexpr int kStageBytes = kTrailerInStage + layout().trailer_bytes;
    static constexpr int kScalesCopyBytes = Kv::kHasScales ? 16 : 0;  // the least that can be copied
    static constexpr int kCopyBytes = 2 * kSliceBytes + kScalesCopyBytes;
    static constexpr int kSlicesPerPage = kPageTokens / kSliceTokens;
    static constexpr int kTiles = kSliceTokens / 16;  // of tokens
    static constexpr int kRowTiles = kUnitRows / 8;   // of rows
    static constexpr int kDimTiles = kHeadDim / 16;   // of dims
    static constexpr int kLaneRows =
        2 * kRowTiles;  // rows of which a lane holds weights: 8 * tile + 2 * (lane mod 4) + {0, 1}
    static constexpr int kOutcomeStride = kHeadDim + 4;  // of a row in shared memory: spreads rows over the banks
    // A few rows of q wait in registers, more of them in shared memory, each 16 bytes further on than it must be, for the banks. Beside fp8
    // all pass through there, with a unit for each row.
    static constexpr bool kKeepsQueries = kUnitRows <= 8;
    static constexpr int kQueryStride = 2 * kHeadDim + 16;
    static constexpr int kQueryBytes =
        Kv::kHasScales ? kUnitRows * (kQueryStride + 4) : (kKeepsQueries ? 0 : kUnitRows * kQueryStride);
    static constexpr int kRingBytes = kWarps * kStages * kStageBytes;
    static constexpr int kOutcomeBytes = kWarps * kUnitRows * kOutcomeStride * 4;
    static constexpr int kSharedBytes = kRingBytes + kOutcomeBytes + kQueryBytes;

    // What a block of these GPUs may have, less the kernel's own variables.
    static_assert(kSharedBytes <= 232448 - 1536);

    // Width of a panel, and where it begins within a slice.
    static constexpr int panel_width(int panel) { return layout().panel_width(panel); }
    static constexpr int panel_in_slice(int panel) { return panel * kSliceTokens * DevicePageLayout::kPanelBytes; }
};

}  // namespace kvgrid::kernels
