#pragma once

#include "core/page_tokens.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// As many as the outcomes of all of them leave room for beside the rings.
constexpr int decode_warp_count(int head_dim, int unit_rows) {
    if (head_dim == 96) return unit_rows <= 8 ? 7 : (unit_rows <= 16 ? 6 : 5);
    if (head_dim == 128 && unit_rows > 16) return 4;
    return head_dim > 128 && unit_rows > 8 ? 4 : 5;
}

// How a decode kernel uses an SM. A slice is what a warp takes at a time: kSliceTokens tokens of K and of V.
//
//   shared memory   ring of warp 0: [stage][K slice | V slice], of warp 1, ...; the outcomes of the warps; q, if many rows share a unit
//
// Some 160 KB in flight keep memory busy; more slow down blocks of many short units beside blocks of a long one.
template <int kHeadDimOf, class ElementOf, int kUnitRowsOf>
struct DecodeVariant {
    using Element = ElementOf;
    static constexpr int kHeadDim = kHeadDimOf;
    static constexpr int kUnitRows = kUnitRowsOf;

    static constexpr int kSliceTokens = (kHeadDim <= 64 ? 64 : (kHeadDim <= 128 ? 32 : 16)) / (kUnitRows > 16 ? 2 : 1);
    static constexpr int kWarps = decode_warp_count(kHeadDim, kUnitRows);
    static constexpr int kStages = kUnitRows > 16 ? 4 : 2;
    static constexpr int kThreads = 32 * kWarps;

    static constexpr DevicePageLayout layout() { return {2 * kHeadDim}; }
    static constexpr int kPanels = DevicePageLayout{2 * kHeadDim}.panel_count();
    static constexpr int kSliceBytes = kSliceTokens * 2 * kHeadDim;  // of K, and of V
    static constexpr int kStageBytes = 2 * kSliceBytes;
    static constexpr int kSlicesPerPage = kPageTokens / kSliceTokens;
    static constexpr int kTiles = kSliceTokens / 16;  // of tokens
    static constexpr int kRowTiles = kUnitRows / 8;   // of rows
    static constexpr int kDimTiles = kHeadDim / 16;   // of dims
    static constexpr int kLaneRows =
        2 * kRowTiles;  // rows of which a lane holds weights: 8 * tile + 2 * (lane mod 4) + {0, 1}
    static constexpr int kOutcomeStride = kHeadDim + 4;  // of a row in shared memory: spreads rows over the banks
    // A few rows of q wait in registers; more of them in shared memory, each 16 bytes further on than it must be, for the banks.
    static constexpr bool kKeepsQueries = kUnitRows <= 8;
    static constexpr int kQueryStride = 2 * kHeadDim + 16;
    static constexpr int kQueryBytes = kKeepsQueries ? 0 : kUnitRows * kQueryStride;
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
