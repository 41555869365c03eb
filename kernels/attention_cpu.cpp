#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <numbers>

#include "kernels/attention.h"
#include "kernels/attention_plan.h"
#include "kernels/attention_tile.h"

namespace kvgrid::kernels {

namespace {

struct FreeAligned {
    void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeAligned>;

AlignedBytes aligned_bytes(std::size_t size) {
    return AlignedBytes(static_cast<std::byte*>(::operator new[](size, std::align_val_t{64})));
}

std::size_t outcome_floats(const AttentionPlan& plan, int head_dim) {
    return static_cast<std::size_t>(plan.tile_rows_max) * (head_dim + 2);
}

FragmentOutcome outcome_at(float* base, const AttentionPlan& plan, int head_dim) {
    float* const maximum = base + static_cast<std::size_t>(plan.tile_rows_max) * head_dim;
    return {base, maximum, maximum + plan.tile_rows_max};
}

// The outcomes of all fragments of split tiles, and how many of each tile's are still missing.
class Buffers {
  public:
    Buffers(const AttentionPlan& plan, int head_dim)
        : plan_(plan),
          head_dim_(head_dim),
          memory_(std::make_unique_for_overwrite<float[]>(plan.buffer_count * outcome_floats(plan, head_dim))),
          missing_(std::make_unique<std::atomic<int>[]>(plan.buffer_count)) {
        for (const Tile& tile : plan.tiles) {
            if (tile.fragment_count > 1)
                missing_[tile.first_buffer].store(tile.fragment_count, std::memory_order_relaxed);
        }
    }

    FragmentOutcome at(int buffer) const {
        return outcome_at(memory_.get() + buffer * outcome_floats(plan_, head_dim_), plan_, head_dim_);
    }
    // True for the one that ends last, which sees what all others wrote.
    bool end_one(const Tile& tile) const {
        return missing_[tile.first_buffer].fetch_sub(1, std::memory_order_acq_rel) == 1;
    }

  private:
    const AttentionPlan& plan_;
    int head_dim_;
    std::unique_ptr<float[]> memory_;
    std::unique_ptr<std::atomic<int>[]> missing_;
};

// Divides by the sum. With several fragments, weighs them first, in the order of their pages: the result does not
// depend on who ended last.
template <class OutcomeAt>
void write_row(int fragment_count, const OutcomeAt& at, int row, int head_dim, float* partial, float* lse) {
    float maximum = -std::numeric_limits<float>::infinity();
    for (int index = 0; index < fragment_count; ++index) maximum = std::max(maximum, at(index).maximum[row]);

    float sum = 0;
    std::fill_n(partial, head_dim, 0.0f);
    for (int index = 0; index < fragment_count; ++index) {
        const FragmentOutcome& from = at(index);
        if (from.sum[row] == 0) continue;
        const float weight = std::exp2(from.maximum[row] - maximum);
        sum += weight * from.sum[row];
        const float* const outcome = from.outcome + static_cast<std::size_t>(row) * head_dim;
        for (int dim = 0; dim < head_dim; ++dim) partial[dim] += weight * outcome[dim];
    }
    if (sum == 0) {
        *lse = -std::numeric_limits<float>::infinity();
        return;
    }
    const float inverse = 1 / sum;
    for (int dim = 0; dim < head_dim; ++dim) partial[dim] *= inverse;
    *lse = static_cast<float>((maximum + std::log2(static_cast<double>(sum))) * std::numbers::ln2);
}

template <class OutcomeAt>
void write_tile(const Attention& work, const Tile& tile, int fragment_count, const OutcomeAt& at) {
    const int group = work.heads.group();
    for (int row = 0; row < tile.row_count; ++row) {
        const int token = (tile.first_row + row) / group;
        const int head = tile.kv_head * group + (tile.first_row + row) % group;
        const std::size_t target =
            static_cast<std::size_t>(work.items[tile.item].first_row + token) * work.heads.query_heads + head;
        write_row(fragment_count, at, row, work.heads.head_dim, &work.partial[target * work.heads.head_dim],
                  &work.lse[target]);
    }
}

void run_part(const Attention& work, const AttentionPlan& plan, const Buffers& buffers, int part) {
    const int head_dim = work.heads.head_dim;
    const std::size_t scratch_bytes = fragment_scratch_bytes(plan.tile_rows_max, head_dim);
    const AlignedBytes memory = aligned_bytes(scratch_bytes + outcome_floats(plan, head_dim) * sizeof(float));
    const FragmentOutcome whole = outcome_at(reinterpret_cast<float*>(memory.get() + scratch_bytes), plan, head_dim);

    for (int index = plan.part_begin(part); index < plan.part_ends[part]; ++index) {
        const Fragment& fragment = plan.fragments[index];
        const Tile& tile = plan.tiles[fragment.tile];
        if (fragment.buffer < 0) {
            attend_fragment(work, tile, fragment, memory.get(), whole);
            write_tile(work, tile, 1, [&](int) { return whole; });
        } else {
            attend_fragment(work, tile, fragment, memory.get(), buffers.at(fragment.buffer));
            if (!buffers.end_one(tile)) continue;
            write_tile(work, tile, tile.fragment_count, [&](int nth) { return buffers.at(tile.first_buffer + nth); });
        }
    }
}

}  // namespace

void attention_cpu(const Attention& work, ThreadPool& threads) {
    check_attention(work, work.partial.size(), work.lse.size());
    const AttentionPlan plan = plan_attention(work, threads.thread_count());
    const Buffers buffers(plan, work.heads.head_dim);
    threads.run(plan.part_count(), [&](int part) { run_part(work, plan, buffers, part); });
}

}  // namespace kvgrid::kernels
