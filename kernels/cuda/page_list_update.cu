#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/page_list_update.h"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void update_entries(PageEntry* entries, DeviceSpan<const EntryUpdate> updates) {
    const std::size_t index = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= updates.size) return;
    const EntryUpdate update = updates.data[index];
    entries[update.at] = update.entry;
}

}  // namespace

void update_page_lists(DeviceSpan<PageEntry> entries, DeviceSpan<const EntryUpdate> updates, Stream stream) {
    if (updates.size == 0) return;
    const auto block_count = static_cast<unsigned>((updates.size + kThreads - 1) / kThreads);
    update_entries<<<block_count, kThreads, 0, stream>>>(entries.data, updates);
    check_launch("update_entries");
}

}  // namespace kvgrid::kernels
