#pragma once

#include "kernels/cuda/decode_math.cuh"
#include "kernels/cuda/decode_ring.cuh"

namespace kvgrid::kernels {

// Where a warp is in the slices that it takes, every kWarps-th of those of its block, and in its ring.
struct SliceWalk {
    int slice = static_cast<int>(threadIdx.x / 32);  // the next one, within its unit
    int stage = 0;
    std::uint32_t parity = 0;

    // Adds this warp's slices of a unit, or of a part of it, as their copies arrive, and starts those that come after.
    template <class Variant>
    __device__ __forceinline__ void add_slices(const DecodeArguments& arguments, const Segments& segments,
                                               SliceRing<Variant>& ring, UnitSums<Variant>& sums) {
        const DecodeUnit& unit = segments.unit();
        const int slice_count = (segments.end_page() - segments.first_page()) * Variant::kSlicesPerPage;
        for (; slice < slice_count; slice += Variant::kWarps) {
            ring.wait(stage, parity);
            const SliceMask mask = mask_of(unit, ring.tokens(stage), arguments.group, arguments.strictly_earlier);
            if (mask.held > 0) sums.add_slice(arguments, unit, mask, ring.slice(stage));
            __syncwarp();
            ring.fill(stage);
            if (++stage == Variant::kStages) {
                stage = 0;
                parity ^= 1;
            }
        }
        slice -= slice_count;
    }
};

}  // namespace kvgrid::kernels
