// One fragment, page by page:
//
//   K block --scores--> [rows][64 tokens] --hide, softmax--> weights --outputs--> [rows][head_dim] <-- V block
//
// While a page is multiplied, the next one is prefetched (attention_prefetch.h).

#include "kernels/attention_tile.h"

#include <algorithm>
#include <limits>
#include <numbers>
#include <utility>

#include "kernels/attention_prefetch.h"
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
    float* scores;   // [rows][kScoreStride]
    float* outputs;  // [rows][output_stride], in the order of the register kernels
};

inline FragmentScratch scratch_at(std::byte* base, int row_count, int head_dim) {
    auto* const queries = reinterpret_cast<float*>(base);
    float* const scores = queries + row_count * query_stride(head_dim);
    return {queries, scores, scores + row_count * kScoreStride};
}

// Slots that a row must not see become -inf, whatever is there.
inline void hide(float* scores, const PageEntry& page, const RowView& view) {
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    const auto slot_of = [&](std::int64_t order, std::int64_t slot_max) {
        return std::clamp<std::int64_t>(order - page.first_token, 0, slot_max);
    };
    const std::int64_t end = slot_of(view.end, page.token_count);
    const std::int64_t first = slot_of(view.first, end);
    const std::int64_t sinks = slot_of(view.sinks, first);
    std::fill(scores + sinks, scores + first, kHidden);
    std::fill(scores + end, scores + kPageTokens, kHidden);
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
          newest_(view_of_row(tile.row_count - 1)),
          prefetch_(2 * block_bytes(), steps_per_page()) {}

    void attend() {
        begin();
        for (int position = fragment_.first; position < fragment_.end; ++position) {
            prefetch_.begin_page(k_block_or_null(position + 1), k_block_or_null(position + kFarPages));
            score(position);
            normalise();
            accumulate(position);
        }
        end();
    }

  private:
    static constexpr int kFarPages = 3;

    float* scores_of(int row) const { return scratch_.scores + row * kScoreStride; }
    RowView view_of_row(int row) const {
        return view_of(work_, item_, item_.first_query + (tile_.first_row + row) / work_.heads.group());
    }
    const PageEntry& entry(int position) const { return pages_[tile_.page_at(position)]; }
    const std::byte* k_block(int position) const { return work_.slab.page(entry(position).page); }
    const std::byte* k_block_or_null(int position) const {
        return position < fragment_.end ? k_block(position) : nullptr;
    }
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

    int row_calls() const { return (tile_.row_count + kProductRowsMax - 1) / kProductRowsMax; }
    std::int64_t steps_per_page() const {
        const int score_steps = kPageTokens / kernels_.score_columns * (head_dim_ / kernels_.elements_per_step);
        const int output_steps = (unit_count_ + kUnitsMax - 1) / kUnitsMax * kPageTokens;
        return std::int64_t{1} * row_calls() * (score_steps + output_steps);
    }

    // Calls the kernel for all rows, as many at a time as registers hold, evenly.
    void for_all_rows(const ProductByRows& kernels, Product product) {
        const int call_count = row_calls();
        const float* const a = product.a;
        float* const c = product.c;
        for (int call = 0; call < call_count; ++call) {
            const int first = call * tile_.row_count / call_count;
            const int end = (call + 1) * tile_.row_count / call_count;
            product.a = a + first * product.a_stride;
            product.c = c + first * product.c_stride;
            prefetch_.pace(product);
            kernels[end - first - 1](product);
        }
    }

    void score(int position) {
        const int columns = kernels_.score_columns;
        const std::size_t columns_bytes = static_cast<std::size_t>(columns) * kernels_.element_bytes;
        for (int first = 0; first < kPageTokens; first += columns) {
            const std::size_t call = first / columns;
            for_all_rows(kernels_.scores,
                         {.a = scratch_.queries,
                          .a_stride = query_stride(head_dim_),
                          .b = k_block(position) + call * columns_bytes,
                          .b_stride_bytes = static_cast<std::size_t>(kPageTokens) * kernels_.element_bytes,
                          .second_unit_bytes = columns_bytes / 2,
                          .steps = head_dim_ / kernels_.elements_per_step,
                          .c = scratch_.scores + first,
                          .c_stride = kScoreStride});
        }
        cap();
        hide_unseen(entry(position));
    }

    void cap() const {
        if (work_.soft_cap == 0) return;
        for (int row = 0; row < tile_.row_count; ++row) {
            cap_scores(scores_of(row), kPageTokens, work_.scale, work_.soft_cap);
        }
    }

    void hide_unseen(const PageEntry& page) const {
        const std::int64_t end = page.first_token + kPageTokens;
        const bool in_window = newest_.first <= page.first_token || end <= newest_.sinks;
        if (page.token_count == kPageTokens && end <= oldest_.end && in_window) return;
        for (int row = 0; row < tile_.row_count; ++row) hide(scores_of(row), page, view_of_row(row));
    }

    void normalise() const {
        const float scale = work_.soft_cap == 0 ? work_.scale : 1;  // cap() has scaled them
        const float scale2 = scale * std::numbers::log2e_v<float>;
        for (int row = 0; row < tile_.row_count; ++row) {
            const float factor =
                update_row(scores_of(row), kPageTokens, scale2, outcome_.maximum[row], outcome_.sum[row]);
            if (factor == 1) continue;
            scale_row(scratch_.outputs + row * output_stride(head_dim_), unit_count_ * kUnitColumns, factor);
        }
    }

    void accumulate(int position) {
        const PageEntry& page = entry(position);
        const auto visible = std::min<std::int64_t>(page.token_count, newest_.end - page.first_token);
        for (int unit = 0; unit < unit_count_; unit += kUnitsMax) {
            const int units = std::min(kUnitsMax, unit_count_ - unit);
            const std::size_t start = unit_start_bytes(unit);
            for_all_rows(kernels_.outputs[units - 1], {.a = scratch_.scores,
                                                       .a_stride = kScoreStride,
                                                       .b = v_block(position) + start,
                                                       .b_stride_bytes = row_bytes(),
                                                       .second_unit_bytes = unit_start_bytes(unit + units - 1) - start,
                                                       .steps = static_cast<int>(visible),
                                                       .c = scratch_.outputs + unit * kUnitColumns,
                                                       .c_stride = output_stride(head_dim_)});
        }
    }

    // The last unit ends where the row ends, and may overlap the one before it.
    std::size_t unit_start_bytes(int unit) const {
        const int column = std::min(unit * kUnitColumns, head_dim_ - kUnitColumns);
        return static_cast<std::size_t>(column) * kernels_.element_bytes;
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
    PagePrefetch prefetch_;
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
    return row_count * (query_stride(head_dim) + kScoreStride + output_stride(head_dim)) * sizeof(float);
}

void attend_fragment(const Attention& work, const Tile& tile, const Fragment& fragment, std::byte* scratch,
                     const FragmentOutcome& outcome) {
    HWY_DYNAMIC_DISPATCH(attend_fragment_on_target)(work, tile, fragment, scratch, outcome);
}

}  // namespace kvgrid::kernels
#endif
