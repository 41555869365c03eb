#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// Four dims of a merged row, from element `at` on, rounded to the dtype of the output.
__device__ __forceinline__ void store_merged(std::byte* merged, Dtype dtype, std::size_t at, const float4& value) {
    if (dtype == Dtype::f32) {
        *reinterpret_cast<float4*>(reinterpret_cast<float*>(merged) + at) = value;
        return;
    }
    const uint2 packed = dtype == Dtype::f16 ? uint2{F16::pack(value.x, value.y), F16::pack(value.z, value.w)}
                                             : uint2{Bf16::pack(value.x, value.y), Bf16::pack(value.z, value.w)};
    *reinterpret_cast<uint2*>(reinterpret_cast<std::uint16_t*>(merged) + at) = packed;
}

}  // namespace kvgrid::kernels
