#pragma once

#include <vector>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/step_inputs.h"
#include "worker/device.h"
#include "worker/gpu/page_lists.h"

namespace kvgrid::worker {

// What the kernels need to know of one batch of sequences, in GPU memory, for one class of layers: made once for the steps that make up
// the batch, and used for each of their layers.
//
//   image   items | page lists | append runs, as made on the host: decodes first, then chunks
//   units   the decodes' schedule, made on the device
//
//   Threads  one at a time. Memory is kept for the next batch.
class BatchPlan {
  public:
    BatchPlan(const DeviceModelShape& shape, int block_count, GpuMemoryCounts& counts);

    // Sequences whose new tokens are few enough for the decode kernels, or those whose are not.
    struct Group {
        kernels::DecodeShape shape;
        kernels::DeviceSpan<const kernels::DecodeItem> items;
        kernels::DeviceSpan<const kernels::PageList> lists;
        std::uint64_t listed_pages = 0;  // of all heads
    };

    // Queues everything on `stream`. `layer` is any one of the class; `kv_layer` its KV's position among those that own KV.
    void make(std::span<const BatchPart> parts, int layer, int kv_layer, const PageLists& lists, const GpuStream& stream);

    const Group& decodes() const { return decodes_; }
    const Group& chunks() const { return chunks_; }
    kernels::DeviceSpan<const kernels::PageList> lists() const { return lists_; }  // of both, for the runs
    kernels::DeviceSpan<const kernels::ListRun> runs() const { return runs_; }
    kernels::DeviceSpan<const kernels::DecodeUnit> units() const { return units_; }
    kernels::DeviceSpan<const kernels::DecodeBlock> blocks() const { return blocks_; }
    double imbalance() const { return imbalance_; }  // of the decodes' schedule: schedule_imbalance
    // Goes up whenever any of these may have moved.
    int move_count() const { return move_count_; }

  private:
    struct Image;

    void describe(std::span<const BatchPart> parts, int layer, const PageLists& lists, Image& image) const;
    void send(const Image& image, const GpuStream& stream);
    void schedule(int kv_layer, const PageLists& lists, const GpuStream& stream);

    const DeviceModelShape& shape_;
    const int block_count_;
    PinnedBuffer host_image_;
    GpuBuffer image_;
    GpuBuffer schedule_;
    Group decodes_, chunks_;
    kernels::DeviceSpan<const kernels::PageList> lists_;
    kernels::DeviceSpan<const kernels::ListRun> runs_;
    kernels::DeviceSpan<kernels::DecodeUnit> units_;
    kernels::DeviceSpan<kernels::DecodeBlock> blocks_;
    double imbalance_ = 1;
    int move_count_ = 0;
};

}  // namespace kvgrid::worker
