#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/attention_plan.h"
#include "kernels/attention_visible.h"

namespace kvgrid::kernels {

namespace {

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("attention: ") + rule);
}

void check_shapes(const Attention& work, std::size_t partial_size, std::size_t lse_size) {
    const HeadShape& heads = work.heads;
    require(heads.kv_heads >= 1 && heads.query_heads >= heads.kv_heads && heads.query_heads % heads.kv_heads == 0,
            "query_heads must be a positive multiple of kv_heads");
    require(heads.head_dim >= 32 && heads.head_dim <= 256 && heads.head_dim % 8 == 0,
            "head_dim must be a multiple of 8 from 32 to 256");
    require(work.dtype == Dtype::f32 || work.dtype == Dtype::f16 || work.dtype == Dtype::bf16,
            "dtype must be f32, f16 or bf16");
    require(std::isfinite(work.scale) && work.scale > 0, "scale must be finite and positive");
    require(std::isfinite(work.soft_cap) && work.soft_cap >= 0, "soft_cap must be finite and not negative");
    require(work.row_count >= 0, "row_count must not be negative");

    const std::size_t rows = static_cast<std::size_t>(work.row_count) * heads.query_heads;
    require(work.q.size() == rows * heads.head_dim * byte_size(work.dtype),
            "q must be [row_count, query_heads, head_dim]");
    require(partial_size == rows * heads.head_dim, "partial must be [row_count, query_heads, head_dim]");
    require(lse_size == rows, "lse must be [row_count, query_heads]");
    require(work.slab.page_bytes >= 2 * kPageTokens * heads.head_dim * byte_size(work.dtype),
            "page_bytes must hold the K and the V block");
}

void check_pages(const Attention& work, const AttentionItem& item, std::span<const PageEntry> pages) {
    const std::int64_t last_query = item.first_query + item.query_count - 1;
    const VisiblePages visible =
        visible_pages(pages, view_of(work, item, item.first_query), view_of(work, item, last_query));
    require(visible.count() == 0 || work.slab.base != nullptr, "the slab is null");
    for (int position = 0; position < visible.count(); ++position) {
        const int index = visible.page_at(position);
        const PageEntry& entry = pages[index];
        require(entry.token_count >= 1 && entry.token_count <= kPageTokens, "a page must hold 1 to 64 tokens");
        const std::int64_t least = index == 0 ? 0 : pages[index - 1].first_token + pages[index - 1].token_count;
        require(entry.first_token >= least, "pages must be in token order and must not overlap");
    }
}

void check_item(const Attention& work, const AttentionItem& item) {
    require(item.query_count >= 0, "query_count must not be negative");
    if (item.query_count == 0) return;
    require(item.first_row >= 0 && item.first_row <= work.row_count - item.query_count, "an item's rows leave q");
    require(item.first_query >= 0 && item.window >= 0 && item.sinks >= 0,
            "first_query, window and sinks must not be negative");
    require(item.streams.size() == static_cast<std::size_t>(work.heads.kv_heads), "an item must have kv_heads streams");
    for (const auto& pages : item.streams) check_pages(work, item, pages);
}

}  // namespace

void check_attention(const Attention& work, std::size_t partial_size, std::size_t lse_size) {
    check_shapes(work, partial_size, lse_size);
    for (const AttentionItem& item : work.items) check_item(work, item);
}

}  // namespace kvgrid::kernels
