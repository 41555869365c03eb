#pragma once

#include "core/dtype.h"
#include "kernels/cuda/device_pages.h"
#include "kernels/cuda/fp8_rules.h"

namespace kvgrid::kernels {

// Between tokens in bf16 or f16 and pages of fp8 elements in GPU memory. Pages are as in DevicePageLayout, numbers as in fp8_rules.h.
// Copying such pages is moving bytes: copy_pages_on_device.
//
//   Shapes  k, v  [row_count, kv_heads, head_dim] in `dtype`, token-major
//   Rule    runs keep the rules of kernels/page_run.h, and no two of an append name the same page. A run appends: slots before its first
//           hold the page's tokens, those from it on hold none. Slot 0 begins the page anew.
//   Scales  of a page's K and of its V, each: that of all tokens that were ever put into it since slot 0. Where new tokens need a larger one,
//           those that are there are rounded again, to it.
//   Async   queued on `stream`; buffers outlive the work queued there. May be captured in a graph. The same calls give the same bytes.
//   Errors  std::invalid_argument where sizes disagree, the dtype is not bf16 or f16, or head_dim is not a multiple of 8 from 8 to 256;
//           CudaError where the launch is refused. What lies in device memory (runs) cannot be checked.
//   Cost    one read of every byte of k and v and one write of half as many / memory bandwidth.

// Puts new tokens into their pages.
struct DeviceFp8Append {
    int kv_heads;
    int head_dim;
    Dtype dtype;
    int row_count;
    PageSlab slab;
    DeviceSpan<const PageRun> runs;
    DeviceSpan<const std::byte> k;
    DeviceSpan<const std::byte> v;
};
void append_fp8_on_device(const DeviceFp8Append& work, Stream stream);

// Reads tokens back: exactly in bf16, rounded to nearest even in f16. What no run names is untouched. Runs may name any slots that hold
// tokens, and any page several times.
struct DeviceFp8ReadPages {
    int kv_heads;
    int head_dim;
    Dtype dtype;
    int row_count;
    PageSlab slab;
    DeviceSpan<const PageRun> runs;
    DeviceSpan<std::byte> k;
    DeviceSpan<std::byte> v;
};
void read_fp8_pages_on_device(const DeviceFp8ReadPages& work, Stream stream);

}  // namespace kvgrid::kernels
