#pragma once

#include <cstdint>

#include "kernels/cuda/device_span.h"
#include "kernels/page_entry.h"

namespace kvgrid::kernels {

// An entry of the page lists in device memory, as it is to be.
struct EntryUpdate {
    PageEntry entry;
    std::int64_t at;  // index among the entries of all lists
};

// Writes changed entries. Updates may lie in device memory or in mapped host memory; no two of them name the same entry.
//
//   Async   queued on `stream`; buffers outlive the work queued there.
//   Errors  CudaError where the launch is refused. Indices cannot be checked.
//   Cost    40 bytes moved for each, and a launch.
void update_page_lists(DeviceSpan<PageEntry> entries, DeviceSpan<const EntryUpdate> updates, Stream stream);

}  // namespace kvgrid::kernels
