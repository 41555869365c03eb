#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device_span.h"
#include "kernels/page_pair.h"
#include "kernels/page_run.h"

namespace kvgrid::kernels {

// Moving tokens and pages in GPU memory. Bytes are moved: only the size of a row matters. Pages are as in DevicePageLayout.
//
//   Shapes  k, v  [row_count, kv_heads, row_bytes], token-major
//   Rule    runs keep the rules of kernels/page_run.h, and no two of them name the same slot of a page.
//   Async   queued on `stream`; buffers outlive the work queued there. May be captured in a graph.
//   Errors  std::invalid_argument where sizes disagree or row_bytes is not a multiple of 16 from 16 to 1024; CudaError where the launch is
//           refused. What lies in device memory (runs, pairs) cannot be checked.
//   Cost    one read and one write of every byte / memory bandwidth.
struct PageSlab {
    std::byte* base = nullptr;
    std::size_t page_bytes = 0;
};

// Puts new tokens into their pages.
struct DeviceAppend {
    int kv_heads;
    int row_bytes;
    int row_count;
    PageSlab slab;
    DeviceSpan<const PageRun> runs;
    DeviceSpan<const std::byte> k;
    DeviceSpan<const std::byte> v;
};
void append_on_device(const DeviceAppend& work, Stream stream);

// Reads tokens back: what no run names is untouched.
struct DeviceReadPages {
    int kv_heads;
    int row_bytes;
    int row_count;
    PageSlab slab;
    DeviceSpan<const PageRun> runs;
    DeviceSpan<std::byte> k;
    DeviceSpan<std::byte> v;
};
void read_pages_on_device(const DeviceReadPages& work, Stream stream);

// Copies whole pages, as for a copy on write. Sources may repeat; no target is named twice or is a source.
struct DeviceCopyPages {
    PageSlab slab;
    DeviceSpan<const PagePair> pairs;
};
void copy_pages_on_device(const DeviceCopyPages& work, Stream stream);

}  // namespace kvgrid::kernels
