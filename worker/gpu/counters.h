#pragma once

#include <cstdint>

#include "kernels/cuda/decode.h"
#include "worker/gpu/memory.h"

namespace kvgrid::worker {

// What a GPU has done for its worker. By the executor's thread; read by others through GpuDevice's copy.
struct GpuCounters {
    std::uint64_t attention_calls[kernels::kDecodePathCount] = {};  // by DecodePath
    std::uint64_t kernel_ns = 0;                                    // of layer calls, on the GPU
    std::uint64_t kv_bytes = 0;                                     // of the pages that they had to read
    std::uint64_t layer_calls = 0;
    std::uint64_t graph_captures = 0;
    std::uint64_t graph_launches = 0;
    std::uint64_t queue_ns = 0;  // of layer calls, on the host: until all was queued
    std::uint64_t decode_calls = 0;
    double imbalance_sum = 0;        // of the decode calls: imbalance_of
    std::uint64_t graph_epochs = 0;  // given to the program
    GpuMemoryCounts memory;
};

}  // namespace kvgrid::worker
