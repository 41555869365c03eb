#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/dtype.h"
#include "kernels/head_shape.h"
#include "kernels/page_layout.h"
#include "kernels/thread_pool.h"

namespace kvgrid::kernels {

// What one sequence of the batch asks for: its new tokens are consecutive, and so are their rows.
struct AttentionItem {
    std::span<const std::span<const PageEntry>> streams;  // [kv_heads] page lists, each in token order; may be empty
    std::int64_t first_query = 0;                         // order number, in the sequence, of the first new token
    int query_count = 0;                                  // new tokens, >= 0
    int first_row = 0;                                    // row of the first new token in q, partial and lse
    std::int64_t window = 0;                              // tokens that a query sees, itself included; 0: all
    std::int64_t sinks = 0;                               // first tokens that stay visible in spite of the window
};

// Attention of the new tokens of a ragged batch over the pages of one shard; decodes and causal chunks in one call.
//
//   Shapes   q        [row_count, query_heads, head_dim]  in `dtype`
//            partial  [row_count, query_heads, head_dim]  f32, normalised over the tokens of this shard
//            lse      [row_count, query_heads]            f32, natural log of the softmax denominator; -inf where nothing is seen
//   Rule     logit = scale * q.k, then soft_cap * tanh(logit / soft_cap) if soft_cap > 0. The query with order number t sees
//            the key with order number j if j <= t (j < t if strictly_earlier) and (window == 0 or j > t - window or j < sinks).
//            A row that sees nothing has partial exactly 0. Rows that no item names are untouched.
//            The pages already hold the new tokens' keys and values (append comes first) unless strictly_earlier hides them.
//            Items name different rows.
//   Errors   std::invalid_argument where spans disagree with the shapes, head_dim is not a multiple of 8 from 32 to 256, scale is
//            not finite and positive, soft_cap negative, or a visible page list out of order; nothing is written then.
//   Cost     every visible KV row is read once per item and 64 rows of (new token, query head of the group), hence once for a
//            decode: bytes = tokens * kv_heads * 2 * row bytes; work is split over the pages of each stream, so that one long
//            stream uses every thread of the pool. The same thread count gives the same bits; deterministic: a row's bits depend
//            on nothing but its own sequence.
//   Numbers  f32 products and accumulation; K, V, q are widened exactly (where the CPU multiplies bf16 itself, subnormal elements
//            of K and q count as 0). NaN and infinity of a token reach the rows that see it, and no others.
//   Source   flash-decoding (split over KV, merge by log-sum-exp); docs/decisions/0003-cpu-page-layout.md.
struct Attention {
    HeadShape heads;
    Dtype dtype;
    float scale;
    float soft_cap = 0;
    bool strictly_earlier = false;
    bool deterministic = false;
    Slab slab;
    std::span<const AttentionItem> items;
    int row_count;
    std::span<const std::byte> q;
    std::span<float> partial;
    std::span<float> lse;
};

void attention_cpu(const Attention& work, ThreadPool& threads);

// The same by the formula, in fp64, one query and head at a time, on all cores; slow and obvious. partial and lse are fp64 here.
void attention_reference(const Attention& work, std::span<double> partial, std::span<double> lse);

}  // namespace kvgrid::kernels
