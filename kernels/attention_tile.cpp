// One fragment, page by page:
//
//   K block --scores--> [rows][64 tokens] --hide, softmax--> weights --outputs--> [rows][head_dim] <-- V block
//
// The next page's K comes to the cache while this one's is multiplied, and V likewise (attention_block.h).

#include "kernels/attention_tile.h"

#include <algorithm>
#include <limits>
#include <numbers>
#include <utility>

#include "kernels/attention_block.h"
#include "kernels/attention_scores_bf16.h"
#include "kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_tile.cpp"
#include "hwy/foreach_target.h"
// Highway wants its own headers after foreach_target.h.
#include "hwy/highway.h"
#include "kernels/attention_product-inl.h"
#include "kernels/attention_softmax-inl.h"

#ifndef KVGRID_KERNELS_ATTENTION_TILE_ONCE_
#define KVGRID_KERNELS_ATTENTION_TILE_ONCE_
namespace kvgrid::kernels {

// A power of two would put the rows of a column into the same few cache lines.
constexpr std::size_t kScoreStride = kPageTokens + 16;

constexpr std::size_t kOutputAlignment = 32;  // columns: the widest unit
inline std::size_t output_stride(int head_dim) {
    return (static_cast<std::size_t>(head_dim) + kOutputAlignment - 1) / kOutputAlignment * kOutputAlignment;
}

inline std::size_t query_stride(int head_dim) {
    return (static_cast<std::size_t>(head_dim) + 15) / 16 * 16;
}

struct FragmentScratch {
    float* queries;  // [rows][query_stride]
    float* scores;   // [2][rows][kScoreStride]; of the page whose V is added, and of the next one
    float* outputs;  // [rows][output_stride], in the order of the register kernels
};

inline FragmentScratch scratch_at(std::byte* base, int row_count, int head_dim) {
    auto* const queries = reinterpret_cast<float*>(base);
    float* const scores = queries + row_count * query_stride(head_dim);
    return {queries, scores, scores + 2 * row_count * kScoreStride};
}

// What a row sees of a page: slots [0, sinks) and [first, end).
struct Slots {
    int sinks, first, end;
};

inline Slots slots_of(const PageEntry& page, const RowView& view) {
    const auto slot_of = [&](std::int64_t order, int slot_max) {
        return static_cast<int>(std::clamp<std::int64_t>(order - page.first_token, 0, slot_max));
    };
    const int end = slot_of(view.end, static_cast<int>(page.token_count));
    const int first = slot_of(view.first, end);
    return {slot_of(view.sinks, first), first, end};
}

// Slots that a row must not see become -inf, whatever is there.
inline void hide(float* scores, const Slots& seen) {
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    std::fill(scores + seen.sinks, scores + seen.first, kHidden);
    std::fill(scores + seen.end, scores + kPageTokens, kHidden);
}

}  // namespace kvgrid::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace kvgrid::kernels::HWY_NAMESPACE {
namespace {

const ProductKernels& kernels_for(Dtype dtype) {
#if HWY_TARGET == HWY_AVX3 && defined(KVGRID_SCORES_BF16)
    static const ProductKernels with_dot_product = with_bf16_scores(kernels_of<Bf16Source>(Dtype::bf16));
    if (dtype == Dtype::bf16 && bf16_scores_supported()) return with_dot_product;
#endif
    for (const ProductKernels& kernels : kProductKernels) {
        if (kernels.dtype == dtype) return kernels;
    }
    return kProductKernels[0];  // not reached: check_attention knows the same dtypes
}

// A fragment on its way.
class Run {
  public:
    Run(const Attention& work, const Tile& tile, const Fragment& fragment, std::byte* scratch,
        const FragmentOutcome& outcome)
        : work_(work),
          tile_(tile),
          fragment_(fragment),
          item_(work.items[tile.item]),
          pages_(item_.streams[tile.kv_head]),
          kernels_(kernels_for(work.dtype)),
          head_dim_(work.heads.head_dim),
          unit_count_((head_dim_ + kUnitColumns - 1) / kUnitColumns),
          scratch_(scratch_at(scratch, tile.row_count, head_dim_)),
          outcome_(outcome),
          oldest_(view_of_row(0)),
          newest_(view_of_row(tile.row_count - 1)) {}

    void attend() {
        begin();
        if (fragment_.first < fragment_.end) {
            scores_of_page(fragment_.first).multiply();
            finish_scores(fragment_.first);
        }
        for (int position = fragment_.first; position < fragment_.end; ++position) {
            const bool is_last = position + 1 == fragment_.end;
            if (!is_last) scores_of_page(position + 1).multiply();
            outputs_of_page(position).multiply();
            if (!is_seen_whole(position)) accumulate_seen(position);
            if (!is_last) finish_scores(position + 1);
        }
        end();
    }

  private:
    float* scores_of(int position, int row) const {
        return scratch_.scores + (position % 2 * tile_.row_count + row) * kScoreStride;
    }
    RowView view_of_row(int row) const {
        return view_of(work_, item_, item_.first_query + (tile_.first_row + row) / work_.heads.group());
    }
    const PageEntry& entry(int position) const { return pages_[tile_.page_at(position)]; }
    const std::byte* k_block(int position) const { return work_.slab.page(entry(position).page); }
    const std::byte* v_block(int position) const { return k_block(position) + block_bytes(); }
    std::size_t row_bytes() const { return static_cast<std::size_t>(head_dim_) * kernels_.element_bytes; }
    std::size_t block_bytes() const { return kPageTokens * row_bytes(); }

    void begin() {
        const int group = work_.heads.group();
        for (int row = 0; row < tile_.row_count; ++row) {
            const int token = item_.first_row + (tile_.first_row + row) / group;
            const int head = tile_.kv_head * group + (tile_.first_row + row) % group;
            const std::size_t index = static_cast<std::size_t>(token) * work_.heads.query_heads + head;
            kernels_.load_query(work_.q.data() + index * row_bytes(), head_dim_,
                                scratch_.queries + row * query_stride(head_dim_));
        }
        std::fill_n(outcome_.maximum, tile_.row_count, -std::numeric_limits<float>::infinity());
        std::fill_n(outcome_.sum, tile_.row_count, 0.0f);
        std::fill_n(scratch_.outputs, tile_.row_count * output_stride(head_dim_), 0.0f);
    }

    BlockProduct scores_of_page(int position) const {
        return {kernels_.scores,
                {.a = scratch_.queries,
                 .a_stride = query_stride(head_dim_),
                 .b = k_block(position),
                 .b_stride_bytes =
                     static_cast<std::size_t>(kPageTokens) * kernels_.element_bytes * kernels_.elements_per_step,
                 .steps = head_dim_ / kernels_.elements_per_step,
                 .columns = kPageTokens,
                 .c = scores_of(position, 0),
                 .c_stride = kScoreStride},
                tile_.row_count,
                position + 1 < fragment_.end ? k_block(position + 1) : nullptr};
    }

    // Of the slots [first, end), for the rows from `row`.
    Product outputs_product(int position, int row, int first, int end) const {
        return {.a = scores_of(position, row) + first,
                .a_stride = kScoreStride,
                .b = v_block(position) + first * row_bytes(),
                .b_stride_bytes = row_bytes(),
                .steps = end - first,
                .columns = head_dim_,
                .c = scratch_.outputs + row * output_stride(head_dim_),
                .c_stride = output_stride(head_dim_)};
    }

    // A page of which some row sees only a part has no steps here: see accumulate_seen.
    BlockProduct outputs_of_page(int position) const {
        return {kernels_.outputs, outputs_product(position, 0, 0, is_seen_whole(position) ? kPageTokens : 0),
                tile_.row_count, position + 1 < fragment_.end ? v_block(position + 1) : nullptr};
    }

    // The rows of a token see the same slots, and read no others: a weight of 0 would not stop a NaN in V.
    void accumulate_seen(int position) const {
        const int group = work_.heads.group();
        for (int row = 0, end = 0; row < tile_.row_count; row = end) {
            end = std::min(tile_.row_count, row + group - (tile_.first_row + row) % group);
            const Slots seen = slots_of(entry(position), view_of_row(row));
            for (const auto& [first_slot, end_slot] : {std::pair(0, seen.sinks), std::pair(seen.first, seen.end)}) {
                BlockProduct{kernels_.outputs, outputs_product(position, row, first_slot, end_slot), end - row, nullptr}
                    .multiply();
            }
        }
    }

    void finish_scores(int position) {
        cap(position);
        hide_unseen(position);
        normalise(position);
    }

    void cap(int position) const {
        if (work_.soft_cap == 0) return;
        for (int row = 0; row < tile_.row_count; ++row) {
            cap_scores(scores_of(position, row), kPageTokens, work_.scale, work_.soft_cap);
        }
    }

    bool is_seen_whole(int position) const {
        const PageEntry& page = entry(position);
        const std::int64_t end = page.first_token + kPageTokens;
        const bool in_window = newest_.first <= page.first_token || end <= newest_.sinks;
        return page.token_count == kPageTokens && end <= oldest_.end && in_window;
    }

    void hide_unseen(int position) const {
        if (is_seen_whole(position)) return;
        for (int row = 0; row < tile_.row_count; ++row) {
            hide(scores_of(position, row), slots_of(entry(position), view_of_row(row)));
        }
    }

    void normalise(int position) const {
        const float scale = work_.soft_cap == 0 ? work_.scale : 1;  // cap() has scaled them
        const float scale2 = scale * std::numbers::log2e_v<float>;
        for (int row = 0; row < tile_.row_count; ++row) {
            const float factor =
                update_row(scores_of(position, row), kPageTokens, scale2, outcome_.maximum[row], outcome_.sum[row]);
            if (factor == 1) continue;
            scale_row(scratch_.outputs + row * output_stride(head_dim_), unit_count_ * kUnitColumns, factor);
        }
    }

    void end() const {
        for (int row = 0; row < tile_.row_count; ++row) {
            kernels_.order_output(scratch_.outputs + row * output_stride(head_dim_), head_dim_,
                                  outcome_.outcome + static_cast<std::size_t>(row) * head_dim_);
        }
    }

    const Attention& work_;
    const Tile& tile_;
    const Fragment& fragment_;
    const AttentionItem& item_;
    std::span<const PageEntry> pages_;
    const ProductKernels& kernels_;
    int head_dim_;
    int unit_count_;
    FragmentScratch scratch_;
    FragmentOutcome outcome_;
    RowView oldest_, newest_;
};

void attend_fragment_on_target(const Attention& work, const Tile& tile, const Fragment& fragment, std::byte* scratch,
                               const FragmentOutcome& outcome) {
    Run(work, tile, fragment, scratch, outcome).attend();
}

}  // namespace
}  // namespace kvgrid::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvgrid::kernels {

HWY_EXPORT(attend_fragment_on_target);

std::size_t fragment_scratch_bytes(int row_count, int head_dim) {
    return row_count * (query_stride(head_dim) + 2 * kScoreStride + output_stride(head_dim)) * sizeof(float);
}

void attend_fragment(const Attention& work, const Tile& tile, const Fragment& fragment, std::byte* scratch,
                     const FragmentOutcome& outcome) {
    HWY_DYNAMIC_DISPATCH(attend_fragment_on_target)(work, tile, fragment, scratch, outcome);
}

}  // namespace kvgrid::kernels
#endif
