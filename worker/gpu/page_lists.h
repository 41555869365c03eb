#pragma once

#include <unordered_map>

#include "core/free_ranges.h"
#include "kernels/cuda/decode_schedule.h"
#include "worker/device.h"
#include "worker/gpu/memory.h"
#include "worker/gpu/stream.h"

namespace kvgrid::worker {

// The page lists of one model's sequences in GPU memory: what StreamTable holds on the host, kept up to date by its changes.
//
//   entries   one array for all sequences; a sequence has one block of it, [KV layer][KV head][capacity], which doubles when a list
//             outgrows it
//
//   Threads   one at a time.
//   Cost      an update costs what has changed since the last one: for a decode, one entry of each stream.
class PageLists {
  public:
    struct Shape {
        int kv_layers;
        int kv_heads;
        std::uint64_t page_count;  // of the model's pool: as many entries have room from the beginning, twice over
    };
    PageLists(const Shape& shape, GpuMemoryCounts& counts, const GpuStream& stream);
    ~PageLists();
    PageLists(const PageLists&) = delete;
    PageLists& operator=(const PageLists&) = delete;

    // Queues what brings the lists of these sequences up to date; what was queued before must be done. CudaError where there is no memory for more of them; the lists of all
    // other sequences are as before then.
    void update(std::span<const BatchPart> parts);
    void forget(SequenceId id);

    // Where the list of a KV head begins in KV layer 0. Its count, the same for all heads, is the caller's to add.
    kernels::PageList list_of(SequenceId id, int head) const;
    kernels::DeviceSpan<kernels::PageEntry> entries() const {
        return {reinterpret_cast<kernels::PageEntry*>(entries_.data()), capacity_};
    }
    // Goes up whenever `entries` moves.
    int move_count() const { return move_count_; }

  private:
    struct Block {
        std::size_t first = 0;
        std::size_t capacity = 0;  // of each list
    };

    std::size_t stream_count() const { return std::size_t(1) * shape_.kv_layers * shape_.kv_heads; }
    void make_room(SequenceState& sequence);
    void add_changes(SequenceState& sequence);
    std::size_t take(std::size_t count);
    void grow_entries(std::size_t count);
    void add_update(const kernels::PageEntry& entry, std::size_t at);
    void send_updates();

    const Shape shape_;
    const GpuStream& stream_;
    GpuMemoryCounts& counts_;
    kernels::DeviceBytes entries_;
    std::size_t capacity_ = 0;  // entries
    FreeRanges free_;           // of them
    std::unordered_map<SequenceId, Block> blocks_;
    PinnedBuffer updates_;
    std::size_t update_count_ = 0;
    int move_count_ = 0;
};

}  // namespace kvgrid::worker
