#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/attention.h"

namespace kvgrid::kernels {

// One sequence of a test batch. Its newest `query_count` tokens ask; where it is split over `part_count` sequence
// parts, only the pages of part `part` are there.
struct TestItem {
    int length = 0;
    int query_count = 1;
    std::int64_t window = 0;
    std::int64_t sinks = 0;
    int part_count = 1;
    int part = 0;
};

struct TestShape {
    Dtype dtype = Dtype::f32;
    int head_dim = 64;
    int kv_heads = 2;
    int group = 3;
    float soft_cap = 0;
    bool strictly_earlier = false;
    double key_size = 1;  // standard deviation of the elements of K
    std::vector<TestItem> items;

    std::string to_string() const;
};

// A batch in memory: random q, K and V out of `seed`; pages in random order; slots that hold no token, rows that no
// item names and all outputs are NaN.
class AttentionCase {
  public:
    AttentionCase(const TestShape& shape, std::uint64_t seed);
    AttentionCase(const AttentionCase&) = delete;
    AttentionCase& operator=(const AttentionCase&) = delete;

    Attention work();
    void set_key(int item, int kv_head, int token, const std::vector<float>& values);
    void set_value(int item, int kv_head, int token, const std::vector<float>& values);
    // Calls change(values), [token][head_dim], with the K and with the V of each page, and stores what it leaves there.
    void change_blocks(const std::function<void(std::span<float>)>& change);
    void set_query(int item, int query, int head, const std::vector<float>& values);

    // Runs `attend` into poisoned outputs, then compares every row with the reference, and that other rows are untouched. The weights
    // may be rounded with this relative error before they meet V.
    void run_and_compare(const std::function<void(const Attention&)>& attend, double weight_roundoff);
    // The same of attention_cpu, which rounds no weights.
    void run_and_compare(ThreadPool& threads);

    const std::vector<float>& partial() const { return partial_; }
    const std::vector<float>& lse() const { return lse_; }
    std::size_t output_row(int item, int query, int head) const;

  private:
    struct Tolerance {
        double partial, lse;
    };
    void fill_pages(int item, std::vector<std::uint32_t>& free_pages, std::uint64_t seed);
    std::byte* page_of(int item, int kv_head, int token);
    Tolerance tolerance(double weight_roundoff) const;
    void run_reference();
    void compare_row(std::size_t row, const Tolerance& allowed) const;

    TestShape shape_;
    std::vector<std::vector<std::vector<PageEntry>>> pages_;  // [item][kv_head]
    std::vector<std::vector<std::span<const PageEntry>>> streams_;
    std::vector<AttentionItem> items_;
    int row_count_ = 0;
    std::vector<std::byte> slab_;
    std::vector<std::byte> q_;
    std::vector<float> partial_;
    std::vector<float> lse_;
    std::vector<double> expected_partial_;  // of the reference; empty until it is asked for, and after a change
    std::vector<double> expected_lse_;
    double query_norm_max_ = 0, key_norm_max_ = 0, value_max_ = 0;
};

}  // namespace kvgrid::kernels
