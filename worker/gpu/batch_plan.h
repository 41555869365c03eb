#pragma once

#include <vector>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/step_inputs.h"
#include "worker/device.h"
#include "worker/gpu/graph_epochs.h"
#include "worker/gpu/page_lists.h"

namespace kvgrid::worker {

// What the kernels need to know of one batch of sequences, in GPU memory, for one class of layers: made once for the steps that make up
// the batch, and used for each of their layers.
//
//   image   items | page lists | append runs, as made on the host: decodes first, then chunks
//   units, blocks, chunk blocks   the schedules of both, made on the device
//
//   Threads  one at a time. Memory is kept for the next batch: the same sizes lie at the same addresses again.
class BatchPlan {
  public:
    BatchPlan(const DeviceModelShape& model, int multiprocessor_count, GpuMemoryCounts& counts);

    struct Class {
        int layer;     // any one of the class
        int kv_layer;  // its KV's position among those that own KV
        int block_count;  // of the decodes' schedule, where units share blocks; of a deterministic model at least decode_blocks_needed
    };
    // Queues everything on `stream`, where what used the plan before is done.
    void make(std::span<const BatchPart> parts, const Class& of, const PageLists& lists, const GpuStream& stream);
    // Of a deterministic model.
    static int decode_blocks_needed(const DeviceModelShape& model, std::span<const BatchPart> parts, int layer);

    const kernels::DecodeShape& shape() const { return shape_; }
    kernels::DeviceSpan<const kernels::DecodeItem> items() const { return items_; }
    kernels::DeviceSpan<const kernels::PageList> lists() const { return lists_; }
    int decode_count() const { return decode_count_; }  // of the items; the others are chunks
    int chunk_count() const { return static_cast<int>(items_.size) - decode_count_; }
    kernels::DeviceSpan<const kernels::ListRun> runs() const { return runs_; }
    kernels::DeviceSpan<const kernels::DecodeUnit> units() const { return units_; }
    kernels::DeviceSpan<const kernels::DecodeBlock> blocks() const { return blocks_; }
    kernels::DeviceSpan<const kernels::PrefillBlock> chunk_blocks() const { return chunk_blocks_; }
    std::uint64_t listed_pages() const { return listed_pages_; }  // of all heads
    int list_pages_max() const { return list_pages_max_; }        // of any list
    PlanSize size() const;
    double imbalance() const { return imbalance_; }  // of the decodes' schedule: imbalance_of
    // Goes up whenever any of these may have moved.
    int move_count() const { return move_count_; }

  private:
    struct Image;

    void describe(std::span<const BatchPart> parts, int layer, const PageLists& lists, bool are_chunks,
                  Image& image) const;
    void send(const Image& image, const GpuStream& stream);
    void schedule_decodes(const Class& of, kernels::DecodeLoad load, const PageLists& lists, const GpuStream& stream);
    void schedule_chunks(const Class& of, const PageLists& lists, const GpuStream& stream);

    const DeviceModelShape& model_;
    const int multiprocessor_count_;
    PinnedBuffer host_image_;
    GpuBuffer image_;
    GpuBuffer decode_schedule_, chunk_schedule_;
    kernels::DecodeShape shape_{};
    int decode_count_ = 0;
    kernels::DeviceSpan<const kernels::DecodeItem> items_;
    kernels::DeviceSpan<const kernels::PageList> lists_;
    kernels::DeviceSpan<const kernels::ListRun> runs_;
    kernels::DeviceSpan<kernels::DecodeUnit> units_;
    kernels::DeviceSpan<kernels::DecodeBlock> blocks_;
    kernels::DeviceSpan<kernels::PrefillBlock> chunk_blocks_;
    std::uint64_t listed_pages_ = 0;
    int list_pages_max_ = 0;
    double imbalance_ = 1;
    int move_count_ = 0;
};

}  // namespace kvgrid::worker
