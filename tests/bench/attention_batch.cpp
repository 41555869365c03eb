#include "tests/bench/attention_batch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace kvgrid::bench {

using kernels::PageEntry;

const char* name_of(PageOrder order) {
    switch (order) {
        case PageOrder::filled:
            return "filled";
        case PageOrder::grown:
            return "grown";
        case PageOrder::random:
            return "random";
    }
    return "?";
}

std::string AttentionShape::to_string() const {
    return std::string(kvgrid::name_of(dtype)) + "/heads:" + std::to_string(query_heads) + "x" +
           std::to_string(kv_heads) + "/d:" + std::to_string(head_dim) + "/new:" + std::to_string(query_count) +
           "/on:" + std::to_string(length) + "/pages:" + name_of(order);
}

void fill_with_normal(std::byte* base, std::size_t bytes, Dtype dtype, std::mt19937_64& random) {
    constexpr std::size_t kTableWords = 1 << 16;
    std::vector<std::byte> table(kTableWords * 4);
    std::normal_distribution<float> normal;
    for (std::size_t index = 0; index < table.size() / byte_size(dtype); ++index) {
        store_element(table.data(), index, dtype, normal(random));
    }
    for (std::size_t byte = 0; byte + 4 <= bytes; byte += 4) {
        const std::size_t word = (byte / 4 * 2654435761u >> 7) % kTableWords;
        std::memcpy(base + byte, table.data() + word * 4, 4);
    }
}

AttentionBatch::AttentionBatch(const AttentionShape& shape) : shape_(shape) {
    const std::uint32_t list_pages = (shape.length + kPageTokens - 1) / kPageTokens;
    const std::uint32_t page_count = list_pages * shape.kv_heads;
    const std::size_t page_bytes = std::size_t{2} * kPageTokens * shape.head_dim * byte_size(shape.dtype);
    slab_.emplace(worker::HostSlab::make(page_bytes, page_count).value());
    std::mt19937_64 random(1);
    fill_with_normal(slab_->view().base, page_bytes * page_count, shape.dtype, random);

    std::vector<std::uint32_t> pages(page_count);
    std::iota(pages.begin(), pages.end(), 0u);
    if (shape.order == PageOrder::random) std::shuffle(pages.begin(), pages.end(), random);
    lists_.resize(shape.kv_heads);
    for (std::uint32_t head = 0; head < lists_.size(); ++head) {
        for (std::uint32_t page = 0; page < list_pages; ++page) {
            const std::uint32_t taken =
                shape.order == PageOrder::grown ? page * shape.kv_heads + head : head * list_pages + page;
            const int first = static_cast<int>(page) * kPageTokens;
            const int count = std::min(kPageTokens, shape.length - first);
            lists_[head].push_back({pages[taken], static_cast<std::uint32_t>(count), first});
        }
    }
    streams_.assign(lists_.begin(), lists_.end());

    const std::size_t elements = std::size_t{1} * shape.query_count * shape.query_heads * shape.head_dim;
    q_.resize(elements * byte_size(shape.dtype));
    fill_with_normal(q_.data(), q_.size(), shape.dtype, random);
    partial_.resize(elements);
    lse_.resize(elements / shape.head_dim);
    item_ = {.streams = streams_, .first_query = shape.length - shape.query_count, .query_count = shape.query_count};
}

kernels::Attention AttentionBatch::work() {
    return {.heads = {shape_.query_heads, shape_.kv_heads, shape_.head_dim},
            .dtype = shape_.dtype,
            .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim)),
            .slab = slab_->view(),
            .items = {&item_, 1},
            .row_count = shape_.query_count,
            .q = q_,
            .partial = partial_,
            .lse = lse_};
}

std::size_t AttentionBatch::kv_bytes() const {
    return std::size_t{2} * shape_.length * shape_.kv_heads * shape_.head_dim * byte_size(shape_.dtype);
}

double AttentionBatch::flops() const {
    const double pairs = shape_.query_count * (shape_.length - (shape_.query_count - 1) / 2.0);
    return 4.0 * pairs * shape_.query_heads * shape_.head_dim;
}

}  // namespace kvgrid::bench
