#pragma once

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "worker/host_slab.h"

namespace kvgrid::bench {

// Which page of the pool follows which in a stream.
enum class PageOrder {
    filled,  // as the pool hands them out to a long chunk: a stream's pages lie side by side
    grown,   // as it hands them out token by token: the streams take turns
    random,
};
const char* name_of(PageOrder order);

struct AttentionShape {
    Dtype dtype;
    int query_heads, kv_heads, head_dim;
    int length;       // tokens of the sequence, the new ones among them
    int query_count;  // new tokens
    PageOrder order = PageOrder::filled;

    std::string to_string() const;
};

// Normal numbers in the dtype, out of a table: drawing each would take longer than the benchmark.
void fill_with_normal(std::byte* base, std::size_t bytes, Dtype dtype, std::mt19937_64& random);

// One sequence in the pages of a worker's own pool.
class AttentionBatch {
  public:
    explicit AttentionBatch(const AttentionShape& shape);
    AttentionBatch(const AttentionBatch&) = delete;
    AttentionBatch& operator=(const AttentionBatch&) = delete;

    kernels::Attention work();
    const std::byte* base() const { return slab_->view().base; }
    std::size_t page_bytes() const { return slab_->view().page_bytes; }
    std::size_t kv_bytes() const;
    double flops() const;  // of both products, visible pairs only

  private:
    AttentionShape shape_;
    std::optional<worker::HostSlab> slab_;
    std::vector<std::vector<kernels::PageEntry>> lists_;
    std::vector<std::span<const kernels::PageEntry>> streams_;
    std::vector<std::byte> q_;
    std::vector<float> partial_, lse_;
    kernels::AttentionItem item_;
};

}  // namespace kvgrid::bench
