#pragma once

#include <cstddef>

#include "core/dtype.h"
#include "kernels/cuda/device_span.h"

namespace kvgrid::kernels {

// MergeParts of kernels/merge_parts.h in GPU memory: the same shapes, rule and meaning of each field.
//
//   Async   queued on `stream`; buffers outlive the work queued there. May be captured in a graph.
//   Errors  std::invalid_argument where spans are too short for the shapes, head_dim is no multiple of 4, or partials, part_stride or
//           merged are not aligned to 16 bytes; CudaError where the launch is refused.
//   Cost    reads every partial once, lse once per 4 dims (from the caches).
struct DeviceMergeParts {
    DeviceSpan<const float> partial;
    DeviceSpan<const float> lse;
    std::size_t part_stride = 0;  // floats
    int part_count;
    int token_count;
    int head_count;
    int head_dim;
    DeviceSpan<std::byte> merged;
    Dtype merged_dtype;
    int merged_heads;
    int first_head;
};
void merge_parts_on_device(const DeviceMergeParts& work, Stream stream);

}  // namespace kvgrid::kernels
