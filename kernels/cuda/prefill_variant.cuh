#pragma once

#include "core/page_tokens.h"
#include "kernels/cuda/decode_schedule.h"
#include "kernels/cuda/device_page_layout.h"

namespace kvgrid::kernels {

// A chunk of new tokens: 128 rows (new token, query head of a group) against their stream's visible pages, a step of one or two pages at a
// time, from the newest to the oldest. One warp group copies, two compute 64 rows each and take turns at the tensor cores: while one
// multiplies, the other does its softmax.
//
//   shared memory   q [panel][128 rows][panel width], then stages of {K, V}, each [panel][kTokens][panel width]: the pages' own panels, page
//                   behind page
template <int kHeadDimOf, class ElementOf>
struct PrefillVariant {
    using Element = ElementOf;
    static constexpr int kHeadDim = kHeadDimOf;
    static constexpr int kRows = DecodeShape::kChunkRows;
    static constexpr int kThreads = 3 * 128;
    static constexpr int kComputing = 2 * 128;  // of the threads

    static constexpr int kPages = kHeadDim > 128 ? 1 : 2;  // of a step: more sums have no registers
    static constexpr int kTokens = kPages * kPageTokens;
    static constexpr int kWindowSteps = 32 / kPages;  // a warp knows the entries of 32 pages at a time

    static constexpr DevicePageLayout layout() { return {2 * kHeadDim}; }
    static constexpr int kPanels = DevicePageLayout{2 * kHeadDim}.panel_count();
    static constexpr int panel_width(int panel) { return layout().panel_width(panel); }
    static constexpr int panel_in_tile(int panel) { return panel * kTokens * DevicePageLayout::kPanelBytes; }
    static constexpr int panel_in_rows(int panel) { return panel * kRows * DevicePageLayout::kPanelBytes; }

    static constexpr int kBlockBytes = kPageTokens * 2 * kHeadDim;  // K or V of a page
    static constexpr int kTileBytes = kPages * kBlockBytes;
    static constexpr int kQueryBytes = kRows * 2 * kHeadDim;
    static constexpr int kStages = kHeadDim < 128 ? 3 : 2;
    static constexpr int kSharedBytes = kQueryBytes + kStages * 2 * kTileBytes;

    // What a thread holds of its group's 64 rows.
    static constexpr int kScores = kTokens / 2;
    static constexpr int kOutcomes = kHeadDim / 2;
    static constexpr int kInnerSteps = kTokens / 16;  // of the product with V

    // Columns of V that are multiplied at a time: whole panels, and those of a narrower one.
    static constexpr int kNarrowColumns = kHeadDim % 64;
    static constexpr int kWideColumns = kHeadDim < 128 ? 64 : 128;
    static constexpr int kWideProducts = kHeadDim / kWideColumns;
    static_assert(kWideProducts * kWideColumns + kNarrowColumns == kHeadDim);

    // What a block of these GPUs may have, less the kernel's own variables.
    static_assert(kSharedBytes <= 232448 - 1024);
};

// A stage of the ring, and how often it has come round.
template <class Variant>
struct PrefillTurn {
    int stage = 0;
    std::uint32_t parity = 0;

    __device__ __forceinline__ void next() {
        if (++stage < Variant::kStages) return;
        stage = 0;
        parity ^= 1;
    }
};

}  // namespace kvgrid::kernels
