#pragma once

#include <algorithm>

#include "core/page_tokens.h"
#include "kernels/cuda/decode_kv.cuh"
#include "kernels/cuda/decode_schedule.h"
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

// Of blocks of which several share an SM, as many as registers and shared memory allow.
constexpr RingShape small_ring_of(int head_dim, bool is_fp8) {
    if (is_fp8) return {head_dim > 128 ? 32 : 64, 4, head_dim <= 64 ? 2 : 1};
    if (head_dim <= 64) return {32, 3, 2};
    return {16, head_dim == 96 ? 4 : 3, 2};
}

// How a decode kernel uses an SM. A slice is what a warp takes at a time: kSliceTokens tokens of K and of V.
//
//   shared memory   ring of warp 0: [stage][K slice | V slice | scales], of warp 1, ...; then what the kind of block needs, below
//
// Some 160 KB in flight keep memory busy; more slow down blocks of many short units beside blocks of a long one.
template <int kHeadDimOf, class ElementOf, int kUnitRowsOf, class KvOf, RingShape kRing>
struct DecodeVariantOf {
    using Element = ElementOf;  // of q and o
    using Kv = KvOf;
    using Math = typename Kv::Math;
    static constexpr int kHeadDim = kHeadDimOf;
    static constexpr int kUnitRows = kUnitRowsOf;

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

    // Width of a panel, and where it begins within a slice.
    static constexpr int panel_width(int panel) { return layout().panel_width(panel); }
    static constexpr int panel_in_slice(int panel) { return panel * kSliceTokens * DevicePageLayout::kPanelBytes; }
};

// What a block of these GPUs may have, less the kernels' own variables.
inline constexpr int kSharedBytesMax = 232448 - 1536;
inline constexpr int kInboxPieceBytes = 24;  // of four dims of a row

template <class Kv>
constexpr RingShape ring_of(int head_dim, int unit_rows) {
    return Kv::kHasScales ? fp8_ring_of(head_dim, unit_rows) : plain_ring_of(head_dim, unit_rows);
}

// Of equal ranges: one block to an SM. Shared memory: rings | outcomes of the warps | q.
template <int kHeadDim, class Element, int kUnitRows, class Kv>
struct DecodeVariant : DecodeVariantOf<kHeadDim, Element, kUnitRows, Kv, ring_of<Kv>(kHeadDim, kUnitRows)> {
    using Base = DecodeVariant::DecodeVariantOf;
    static constexpr int kOutcomesOffset = Base::kRingBytes;
    static constexpr int kWarpOutcomeFloats = kUnitRows * Base::kOutcomeStride;
    static constexpr int kQueriesOffset = kOutcomesOffset + Base::kWarps * kWarpOutcomeFloats * 4;
    static constexpr int kSharedBytes = kQueriesOffset + Base::kQueryBytes;
    static_assert(kSharedBytes <= kSharedBytesMax);
};

// Of blocks that have a part of one unit only. Shared memory: rings, which take the outcomes of the warps when all has been read | q | in a
// cluster, what its other blocks bring (decode_own_block.cuh).
template <class BaseVariant, bool kIsInClusterOf>
struct OwnBlockVariant : BaseVariant {
    static constexpr bool kIsInCluster = kIsInClusterOf;
    static constexpr int kOutcomesOffset = 0;
    static constexpr int kWarpBytes = std::max(BaseVariant::kStages * BaseVariant::kStageBytes,
                                               BaseVariant::kUnitRows* BaseVariant::kOutcomeStride * 4);
    static constexpr int kWarpOutcomeFloats = kWarpBytes / 4;
    static constexpr int kQueriesOffset = BaseVariant::kWarps * kWarpBytes;
    static constexpr int kInboxOffset = kQueriesOffset + (BaseVariant::kQueryBytes + 15) / 16 * 16;
    // The pieces of a block's share, rounded up, from each block.
    static constexpr int kInboxPieces =
        kIsInCluster ? BaseVariant::kUnitRows * BaseVariant::kHeadDim / 4 + UnitCut::kPartsMax : 0;
    static constexpr int kSharedBytes = kInboxOffset + kInboxPieces * kInboxPieceBytes;
    static_assert(kWarpBytes % 128 == 0 && kSharedBytes <= kSharedBytesMax);
};

template <int kHeadDim, class Element, int kUnitRows, class Kv>
using ClusterVariant =
    OwnBlockVariant<DecodeVariantOf<kHeadDim, Element, kUnitRows, Kv, ring_of<Kv>(kHeadDim, kUnitRows)>, true>;
template <int kHeadDim, class Element, int kUnitRows, class Kv>
using SmallBlockVariant =
    OwnBlockVariant<DecodeVariantOf<kHeadDim, Element, kUnitRows, Kv, small_ring_of(kHeadDim, Kv::kHasScales)>, false>;

}  // namespace kvgrid::kernels
