#include "kernels/cuda/device_merge_parts.h"

#include <math_constants.h>

#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/merged_output.cuh"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kDims = 4;  // of a row, to a thread

// Four dims of one row over all parts.
__device__ float4 merge_row(const DeviceMergeParts& work, std::size_t row, int dim) {
    const auto partial = [&](int part) {
        const float* const from = work.partial.data + part * work.part_stride + row * work.head_dim + dim;
        return *reinterpret_cast<const float4*>(from);
    };
    if (work.part_count == 1) return partial(0);
    const float* const lse = work.lse.data + row;
    float lse_max = -CUDART_INF_F;
    for (int part = 0; part < work.part_count; ++part) lse_max = fmaxf(lse_max, lse[part * work.part_stride]);
    float4 merged = {0, 0, 0, 0};
    float weight_sum = 0;
    for (int part = 0; part < work.part_count; ++part) {
        const float of_part = lse[part * work.part_stride];
        if (of_part == -CUDART_INF_F) continue;  // its partial may be anything
        const float weight = expf(of_part - lse_max);
        const float4 value = partial(part);
        weight_sum += weight;
        merged.x += weight * value.x;
        merged.y += weight * value.y;
        merged.z += weight * value.z;
        merged.w += weight * value.w;
    }
    if (weight_sum == 0) return merged;
    const float inverse = 1 / weight_sum;
    return {merged.x * inverse, merged.y * inverse, merged.z * inverse, merged.w * inverse};
}

__global__ __launch_bounds__(kThreads) void merge_rows(const __grid_constant__ DeviceMergeParts work) {
    const int pieces_per_row = work.head_dim / kDims;
    const std::size_t index = blockIdx.x * std::size_t{kThreads} + threadIdx.x;
    const std::size_t row = index / pieces_per_row;
    const std::size_t token = row / work.head_count;
    if (token >= static_cast<std::size_t>(work.token_count)) return;
    const int dim = static_cast<int>(index % pieces_per_row) * kDims;
    const std::size_t head = work.first_head + row % work.head_count;
    const std::size_t at = (token * work.merged_heads + head) * work.head_dim + dim;
    store_merged(work.merged.data, work.merged_dtype, at, merge_row(work, row, dim));
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("merge_parts_on_device: ") + rule);
}

bool is_aligned(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

void check(const DeviceMergeParts& work) {
    require(work.part_count >= 1 && work.token_count >= 0 && work.head_count >= 1,
            "part_count and head_count must be positive");
    require(work.head_dim >= kDims && work.head_dim % kDims == 0, "head_dim must be a positive multiple of 4");
    require(work.first_head >= 0 && work.first_head <= work.merged_heads - work.head_count, "the heads leave merged");
    const std::size_t rows = static_cast<std::size_t>(work.token_count) * work.head_count;
    const std::size_t last_part = (work.part_count - 1) * work.part_stride;
    require(rows == 0 || work.partial.size >= last_part + rows * work.head_dim, "partial is too short for its shape");
    require(rows == 0 || work.lse.size >= last_part + rows, "lse is too short for its shape");
    const std::size_t elements = static_cast<std::size_t>(work.token_count) * work.merged_heads * work.head_dim;
    require(work.merged.size >= elements * byte_size(work.merged_dtype), "merged is too short for its shape");
    require(is_aligned(work.partial.data) && is_aligned(work.merged.data) && work.part_stride % 4 == 0,
            "partial, merged and part_stride must be aligned to 16 bytes");
}

}  // namespace

void merge_parts_on_device(const DeviceMergeParts& work, Stream stream) {
    check(work);
    const std::size_t pieces = static_cast<std::size_t>(work.token_count) * work.head_count * (work.head_dim / kDims);
    if (pieces == 0) return;
    merge_rows<<<static_cast<unsigned>((pieces + kThreads - 1) / kThreads), kThreads, 0, stream>>>(work);
    check_launch("merge_rows");
}

}  // namespace kvgrid::kernels
