#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/device_buffer.h"

namespace kvgrid::bench {

struct DecodeCase {
    std::string name;
    std::vector<int> lengths;  // of the sequences that decode, new tokens included
    int query_heads = 32, kv_heads = 8, head_dim = 128;
    Dtype dtype = Dtype::bf16;
    int query_count = 1;
    int calls = 1;                        // in one graph
    std::vector<int> chunk_lengths = {};  // of those that have a chunk
    int chunk_query_count = 0;
    KvDtype kv_dtype = KvDtype::as_model;
    std::optional<kernels::UnitCut> cut = std::nullopt;  // none: what is best
};

// A decode of random numbers over pages in random order, in memory of the current device, with its schedule made.
class DecodeOnDevice {
  public:
    explicit DecodeOnDevice(const DecodeCase& shape);

    kernels::Decode work() const;
    kernels::ScheduleDecode schedule() const;
    kernels::SchedulePrefill chunk_schedule() const;
    double kv_bytes() const { return kv_bytes_; }
    // |fast - general| / |general|, where the general way is not too slow to wait for; otherwise negative.
    double difference_from_general() const;

  private:
    struct Lists;

    kernels::UnitCut best_cut(const Lists& lists, std::size_t unit_count, int multiprocessor_count) const;
    void fill_pages(std::size_t page_count);

    kernels::DecodeShape shape_;
    Dtype dtype_;
    KvDtype kv_dtype_;
    int decode_count_, chunk_count_;
    int row_count_;
    std::size_t page_bytes_;
    double kv_bytes_ = 0;
    int list_pages_max_ = 0;
    kernels::DeviceArray<std::byte> slab_, q_, rounded_, scratch_;
    kernels::DeviceArray<kernels::DecodeItem> items_;
    kernels::DeviceArray<kernels::PageList> lists_;
    kernels::DeviceArray<kernels::PageEntry> entries_;
    kernels::DeviceArray<kernels::DecodeUnit> units_;
    kernels::DeviceArray<kernels::DecodeBlock> blocks_;
    kernels::DeviceArray<std::int32_t> cost_before_;
    kernels::DeviceArray<kernels::PrefillBlock> chunk_blocks_;
    kernels::DeviceArray<kernels::PrefillStream> chunk_streams_;
    kernels::DeviceArray<float> partial_, lse_, workspace_;
};

}  // namespace kvgrid::bench
