#pragma once

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/prefill_group.cuh"
#include "kernels/cuda/prefill_launch.h"

namespace kvgrid::kernels {

// q as the tensor cores read it; rows that the unit lacks are 0. By the two groups that compute.
template <class Variant>
__device__ __forceinline__ void load_chunk_queries(const DecodeArguments& arguments, const DecodeUnit& unit,
                                                   std::byte* memory) {
    constexpr int kChunksPerRow = Variant::kHeadDim / 8;
    for (int index = threadIdx.x - 128; index < Variant::kRows * kChunksPerRow; index += Variant::kComputing) {
        const int row = index / kChunksPerRow, chunk = index % kChunksPerRow;
        uint4 words = {0, 0, 0, 0};
        if (row < unit.row_count) {
            const std::size_t at = row_of_unit(arguments, unit, row) * kChunksPerRow + chunk;
            words = static_cast<const uint4*>(arguments.q)[at];
        }
        const int panel = chunk / 8, width = Variant::panel_width(panel);
        const int place = (chunk % 8 ^ DevicePageLayout::swizzle(row, width)) * DevicePageLayout::kChunkBytes;
        *reinterpret_cast<uint4*>(memory + Variant::panel_in_rows(panel) + row * width + place) = words;
    }
    shared_writes_fence();
    named_barrier_wait(1, Variant::kComputing);
}

template <class Variant>
__global__ __launch_bounds__(Variant::kThreads, 1) void prefill_block(const __grid_constant__ PrefillWork work) {
    extern __shared__ __align__(1024) std::byte memory[];
    __shared__ PrefillShared<Variant> shared;
    allow_next_kernel();
    if (threadIdx.x == 0) shared.init();
    wait_for_previous_kernel();
    constexpr int kWords = sizeof(PrefillBlock) / sizeof(uint4);
    if (threadIdx.x < kWords) {
        reinterpret_cast<uint4*>(&shared.block)[threadIdx.x] =
            reinterpret_cast<const uint4*>(work.blocks + blockIdx.x)[threadIdx.x];
    }
    __syncthreads();
    if (shared.block.unit.row_count == 0) return;
    const std::uint32_t ring = shared_address(memory) + Variant::kQueryBytes;
    // 40 + 2 * 232 registers: no more than three times the 168 that each thread starts with.
    if (threadIdx.x < 128) {
        give_back_registers<40>();
        if (threadIdx.x < 32) {
            PrefillCopies<Variant>(work.arguments, shared, ring).run();
        } else if (threadIdx.x < 64) {
            PrefillMasks<Variant>(work.arguments, shared.block).prefetch_newest();
        }
    } else {
        take_registers<232>();
        load_chunk_queries<Variant>(work.arguments, shared.block.unit, memory);
        PrefillGroup<Variant> group(work.arguments, shared, ring, static_cast<int>(threadIdx.x) / 128 - 1);
        group.run();
        group.finish();
    }
}

template <int kHeadDim, class Element>
void launch_prefill(const PrefillWork& work, Stream stream) {
    using Variant = PrefillVariant<kHeadDim, Element>;
    const auto kernel = prefill_block<Variant>;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Variant::kSharedBytes),
               "cudaFuncSetAttribute of prefill_block");
    // Blocks may start as those of the kernel before leave their SMs; they wait for all of it before they read anything.
    cudaLaunchAttribute early_start{};
    early_start.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early_start.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = work.block_count;
    config.blockDim = Variant::kThreads;
    config.dynamicSmemBytes = Variant::kSharedBytes;
    config.stream = stream;
    config.attrs = &early_start;
    config.numAttrs = 1;
    check_cuda(cudaLaunchKernelEx(&config, kernel, work), "launch of prefill_block");
}

}  // namespace kvgrid::kernels
