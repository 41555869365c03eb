#include "worker/gpu/page_lists.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/page_list_update.h"
#include "worker/gpu/timeouts.h"

namespace kvgrid::worker {

using kernels::EntryUpdate;
using kernels::PageEntry;

namespace {

constexpr std::size_t kUpdatesMax = 1 << 16;  // that are sent together
constexpr std::size_t kListCapacityMin = 16;
constexpr std::size_t kEntriesMin = 1 << 14;

}  // namespace

PageLists::PageLists(const Shape& shape, GpuMemoryCounts& counts, const GpuStream& stream)
    : shape_(shape), stream_(stream), counts_(counts), updates_(counts) {
    updates_.grow(kUpdatesMax * sizeof(EntryUpdate));
    grow_entries(std::max(kEntriesMin, 2 * static_cast<std::size_t>(shape.page_count)));
}

PageLists::~PageLists() {
    counts_.device[static_cast<int>(GpuMemoryKind::page_lists)] -= entries_.size();
}

kernels::PageList PageLists::list_of(SequenceId id, int head) const {
    const Block& block = blocks_.at(id);
    return {static_cast<std::int32_t>(block.first + head * block.capacity), 0,
            static_cast<std::int32_t>(shape_.kv_heads * block.capacity)};
}

void PageLists::update(std::span<const BatchPart> parts) {
    for (const BatchPart& part : parts) make_room(*part.sequence);  // all that can fail
    for (const BatchPart& part : parts) add_changes(*part.sequence);
    send_updates();
}

void PageLists::add_changes(SequenceState& sequence) {
    const Block& block = blocks_.at(sequence.id);
    for (int layer = 0; layer < shape_.kv_layers; ++layer) {
        for (int head = 0; head < shape_.kv_heads; ++head) {
            const std::size_t stream = static_cast<std::size_t>(layer) * shape_.kv_heads + head;
            const auto& list = sequence.streams[stream];
            const std::size_t first = block.first + stream * block.capacity;
            for (std::size_t entry = sequence.changed_from[layer]; entry < list.size(); ++entry) {
                add_update(list[entry], first + entry);
            }
        }
        sequence.changed_from[layer] = std::numeric_limits<std::size_t>::max();
    }
}

// A block that can hold the sequence's longest list. A new one knows none of its entries.
void PageLists::make_room(SequenceState& sequence) {
    std::size_t longest = 0;
    for (const auto& list : sequence.streams) longest = std::max(longest, list.size());
    const auto found = blocks_.find(sequence.id);
    const Block block = found == blocks_.end() ? Block{} : found->second;
    if (block.capacity >= std::max<std::size_t>(longest, 1)) return;
    const std::size_t capacity = std::max({kListCapacityMin, longest, std::min(2 * block.capacity, 2 * longest)});
    const std::size_t first = take(capacity * stream_count());
    free_.give_back(block.first, block.capacity * stream_count());
    blocks_[sequence.id] = {first, capacity};
    std::ranges::fill(sequence.changed_from, 0);
}

void PageLists::forget(SequenceId id) {
    const auto found = blocks_.find(id);
    if (found == blocks_.end()) return;
    free_.give_back(found->second.first, found->second.capacity * stream_count());
    blocks_.erase(found);
}

std::size_t PageLists::take(std::size_t count) {
    if (const auto first = free_.take(count)) return *first;
    grow_entries(2 * capacity_ + count);
    return free_.take(count).value();
}

void PageLists::grow_entries(std::size_t count) {
    // Kernels count entries in 32 bits.
    if (count > std::numeric_limits<std::int32_t>::max()) {
        throw kernels::CudaError("the page lists of one model would have more than 2^31 entries: close sequences");
    }
    kernels::DeviceBytes grown(count * sizeof(PageEntry));
    if (capacity_ > 0) {
        kernels::check_cuda(
            cudaMemcpyAsync(grown.data(), entries_.data(), entries_.size(), cudaMemcpyDeviceToDevice, stream_.get()),
            "cudaMemcpyAsync of page lists");
        stream_.wait(kGpuPatience);
    }
    counts_.device[static_cast<int>(GpuMemoryKind::page_lists)] += grown.size() - entries_.size();
    entries_ = std::move(grown);
    free_.give_back(capacity_, count - capacity_);
    capacity_ = count;
    ++move_count_;
}

void PageLists::add_update(const PageEntry& entry, std::size_t at) {
    if (update_count_ == kUpdatesMax) {
        send_updates();
        stream_.wait(kGpuPatience);
    }
    reinterpret_cast<EntryUpdate*>(updates_.data())[update_count_++] = {entry, static_cast<std::int64_t>(at)};
}

void PageLists::send_updates() {
    if (update_count_ == 0) return;
    kernels::update_page_lists(entries(), {reinterpret_cast<const EntryUpdate*>(updates_.data()), update_count_},
                               stream_.get());
    update_count_ = 0;
}

}  // namespace kvgrid::worker
