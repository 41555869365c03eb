#pragma once

namespace kvgrid::kernels {

// The sum of `value` over the threads of a block of 1024 up to this one. By all of them; `warp_sums` is shared, [32].
__device__ inline int sum_up_to(int value, int* warp_sums) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int distance = 1; distance < 32; distance *= 2) {
        const int other = __shfl_up_sync(~0u, value, distance);
        if (lane >= distance) value += other;
    }
    if (lane == 31) warp_sums[warp] = value;
    __syncthreads();
    int before = 0;
    for (int index = 0; index < 32; ++index) before += index < warp ? warp_sums[index] : 0;
    __syncthreads();
    return before + value;
}

}  // namespace kvgrid::kernels
