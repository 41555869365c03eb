#pragma once

#include <cstddef>

#include "client/kvgrid.h"
#include "client/python/gpu/gpu.h"
#include "client/python/gpu/shared_gpu_memory.h"

namespace kvgrid::python {

// A tensor in GPU memory, contiguous; no bytes: the call has none.
struct GpuSpan {
    Gpu::Address address = 0;
    std::size_t bytes = 0;
};

// One layer call whose tensors are on one GPU.
struct GpuLayer {
    int layer;
    int gpu;
    GpuSpan q, k, v, o;
    Gpu::Stream stream;
};

// Step::layer for them. What was queued on the stream is done before they are read, and what is queued there afterwards finds o.
//
//   Cost    nothing is copied where all begin in one allocation of `memory`, at multiples of 16; else they are copied on the GPU, to a place there and o
//           back; and through the host's memory where the lead does not reach this GPU's.
//   Errors  as Step::layer_on_device and Step::layer. What becomes of o is not known then.
Status call_layer(Step& step, SharedGpuMemory& memory, const GpuLayer& call);

}  // namespace kvgrid::python
