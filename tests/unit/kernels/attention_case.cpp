#include "tests/unit/kernels/attention_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace kvgrid::kernels {

namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
constexpr int kUnnamedRows = 2;  // before the first item, between items and at the end

double norm(const std::vector<float>& values) {
    return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

std::vector<float> random_row(int head_dim, double size, std::mt19937_64& random) {
    std::normal_distribution<double> normal(0, size);
    std::vector<float> row(head_dim);
    for (float& element : row) element = static_cast<float>(normal(random));
    return row;
}

bool is_poison(float value) {
    return std::bit_cast<std::uint32_t>(value) == std::bit_cast<std::uint32_t>(kPoison);
}

}  // namespace

std::string TestShape::to_string() const {
    std::string text = std::string(name_of(dtype)) + " head_dim " + std::to_string(head_dim) + " kv_heads " +
                       std::to_string(kv_heads) + " group " + std::to_string(group);
    for (const TestItem& item : items) {
        text += " [length " + std::to_string(item.length) + " queries " + std::to_string(item.query_count) +
                " window " + std::to_string(item.window) + " sinks " + std::to_string(item.sinks) + " part " +
                std::to_string(item.part) + "/" + std::to_string(item.part_count) + "]";
    }
    return text;
}

AttentionCase::AttentionCase(const TestShape& shape, std::uint64_t seed) : shape_(shape) {
    std::mt19937_64 random(seed);
    const std::size_t size = byte_size(shape.dtype);
    std::size_t page_count = 0;
    row_count_ = kUnnamedRows;
    for (const TestItem& item : shape.items) {
        page_count += static_cast<std::size_t>(shape.kv_heads) * (item.length / kPageTokens + 1);
        row_count_ += item.query_count + kUnnamedRows;
    }

    const std::size_t page_elements = std::size_t{2} * kPageTokens * shape.head_dim;
    slab_.resize(page_count * page_elements * size);
    for (std::size_t index = 0; index < slab_.size() / size; ++index) {
        store_element(slab_.data(), index, shape.dtype, kPoison);
    }
    const std::size_t q_elements = std::size_t{1} * row_count_ * shape.kv_heads * shape.group * shape.head_dim;
    q_.resize(q_elements * size);
    for (std::size_t index = 0; index < q_elements; ++index) store_element(q_.data(), index, shape.dtype, kPoison);

    std::vector<std::uint32_t> free_pages(page_count);
    std::iota(free_pages.begin(), free_pages.end(), 0u);
    std::shuffle(free_pages.begin(), free_pages.end(), random);

    int row = kUnnamedRows;
    for (const TestItem& item : shape.items) {
        items_.push_back({.first_query = item.length - item.query_count,
                          .query_count = item.query_count,
                          .first_row = row,
                          .window = item.window,
                          .sinks = item.sinks});
        row += item.query_count + kUnnamedRows;
    }
    for (int item = 0; item < static_cast<int>(shape.items.size()); ++item) fill_pages(item, free_pages, random());
    for (std::size_t item = 0; item < items_.size(); ++item) items_[item].streams = streams_[item];
}

void AttentionCase::fill_pages(int item_index, std::vector<std::uint32_t>& free_pages, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const TestItem& item = shape_.items[item_index];
    auto& heads = pages_.emplace_back(shape_.kv_heads);
    for (auto& list : heads) {
        for (int first = 0, page = 0; first < item.length; first += kPageTokens, ++page) {
            if (page % item.part_count != item.part) continue;
            const int count = std::min(kPageTokens, item.length - first);
            list.push_back({free_pages.back(), static_cast<std::uint32_t>(count), first});
            free_pages.pop_back();
        }
    }
    streams_.emplace_back(heads.begin(), heads.end());

    for (int head = 0; head < shape_.kv_heads; ++head) {
        for (int token = 0; token < item.length; ++token) {
            // Drawn for missing pages too: the same seed gives all parts of a sequence the same tokens.
            const std::vector<float> key = random_row(shape_.head_dim, shape_.key_size, random);
            const std::vector<float> value = random_row(shape_.head_dim, 1, random);
            if (page_of(item_index, head, token) == nullptr) continue;
            set_key(item_index, head, token, key);
            set_value(item_index, head, token, value);
        }
    }
    for (int query = 0; query < item.query_count; ++query) {
        for (int head = 0; head < shape_.kv_heads * shape_.group; ++head) {
            set_query(item_index, query, head, random_row(shape_.head_dim, 1, random));
        }
    }
}

std::byte* AttentionCase::page_of(int item, int kv_head, int token) {
    const std::size_t page_bytes = std::size_t{2} * kPageTokens * shape_.head_dim * byte_size(shape_.dtype);
    for (const PageEntry& entry : pages_[item][kv_head]) {
        if (token >= entry.first_token && token < entry.first_token + kPageTokens) {
            return slab_.data() + entry.page * page_bytes;
        }
    }
    return nullptr;
}

void AttentionCase::set_key(int item, int kv_head, int token, const std::vector<float>& values) {
    expected_lse_.clear();
    const PageLayout layout{shape_.head_dim};
    std::byte* const page = page_of(item, kv_head, token);
    for (int dim = 0; dim < shape_.head_dim; ++dim) {
        store_element(page, layout.k_index(token % kPageTokens, dim), shape_.dtype, values[dim]);
    }
    key_norm_max_ = std::max(key_norm_max_, norm(values));
}

void AttentionCase::set_value(int item, int kv_head, int token, const std::vector<float>& values) {
    expected_lse_.clear();
    const PageLayout layout{shape_.head_dim};
    std::byte* const page = page_of(item, kv_head, token);
    for (int dim = 0; dim < shape_.head_dim; ++dim) {
        store_element(page, layout.v_index(token % kPageTokens, dim), shape_.dtype, values[dim]);
        value_max_ = std::max<double>(value_max_, std::abs(values[dim]));
    }
}

void AttentionCase::change_blocks(const std::function<void(std::span<float>)>& change) {
    const PageLayout layout{shape_.head_dim};
    for (int item = 0; item < static_cast<int>(pages_.size()); ++item) {
        for (int head = 0; head < shape_.kv_heads; ++head) {
            for (const PageEntry& entry : pages_[item][head]) {
                const std::byte* const page = page_of(item, head, static_cast<int>(entry.first_token));
                std::vector<float> keys, values;
                for (int token = 0; token < static_cast<int>(entry.token_count); ++token) {
                    for (int dim = 0; dim < shape_.head_dim; ++dim) {
                        keys.push_back(load_element(page, layout.k_index(token, dim), shape_.dtype));
                        values.push_back(load_element(page, layout.v_index(token, dim), shape_.dtype));
                    }
                }
                change(keys);
                change(values);
                for (int token = 0; token < static_cast<int>(entry.token_count); ++token) {
                    const int order = static_cast<int>(entry.first_token) + token;
                    const auto row = [&](const std::vector<float>& rows) {
                        const auto first = rows.begin() + token * shape_.head_dim;
                        return std::vector<float>(first, first + shape_.head_dim);
                    };
                    set_key(item, head, order, row(keys));
                    set_value(item, head, order, row(values));
                }
            }
        }
    }
}

void AttentionCase::set_query(int item, int query, int head, const std::vector<float>& values) {
    expected_lse_.clear();
    const std::size_t row = output_row(item, query, head);
    for (int dim = 0; dim < shape_.head_dim; ++dim) {
        store_element(q_.data(), row * shape_.head_dim + dim, shape_.dtype, values[dim]);
    }
    query_norm_max_ = std::max(query_norm_max_, norm(values));
}

std::size_t AttentionCase::output_row(int item, int query, int head) const {
    const std::size_t row = items_[item].first_row + query;
    return row * shape_.kv_heads * shape_.group + head;
}

Attention AttentionCase::work() {
    return {.heads = {shape_.kv_heads * shape_.group, shape_.kv_heads, shape_.head_dim},
            .dtype = shape_.dtype,
            .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim)),
            .soft_cap = shape_.soft_cap,
            .strictly_earlier = shape_.strictly_earlier,
            .slab = {slab_.data(), std::size_t{2} * kPageTokens * shape_.head_dim * byte_size(shape_.dtype)},
            .items = items_,
            .row_count = row_count_,
            .q = q_,
            .partial = partial_,
            .lse = lse_};
}

// Inputs are the same in both computations and widen exactly, so that errors come from f32 arithmetic alone, u = 2^-24.
//   logit   its partial sums walk up to |q||k|, each rounded once: u * scale * |q||k| is about one deviation, 8 of them
//   are
//           allowed; tanh errs by less than 8 u, relative to the cap
//   weight  relative error = twice the logit's (its own and the maximum's), the exponential's (4 u), and that of the
//   sums over
//           n tokens, which walk: 4 u sqrt(n)
//   output  the weight's relative error times the largest |v|
// Weights that are rounded before they meet V, but not before they are summed, err by that much more.
AttentionCase::Tolerance AttentionCase::tolerance(double weight_roundoff) const {
    const double u = unit_roundoff(Dtype::f32);
    int length_max = 1;
    for (const TestItem& item : shape_.items) length_max = std::max(length_max, item.length);
    const double logit_max = query_norm_max_ * key_norm_max_ / std::sqrt(shape_.head_dim);
    const double logit = 8 * u * logit_max + 8 * u * shape_.soft_cap;
    const double weight = 2 * logit + u * (16 + 4 * std::sqrt(length_max));
    return {(weight + weight_roundoff) * value_max_, weight + 4 * u * std::log(length_max)};
}

void AttentionCase::compare_row(std::size_t row, const Tolerance& allowed) const {
    const bool sees_nothing = std::isinf(expected_lse_[row]);
    if (sees_nothing) {
        ASSERT_EQ(lse_[row], -std::numeric_limits<float>::infinity()) << "row " << row;
    } else {
        ASSERT_NEAR(lse_[row], expected_lse_[row], allowed.lse) << "row " << row;
    }
    for (int dim = 0; dim < shape_.head_dim; ++dim) {
        const std::size_t index = row * shape_.head_dim + dim;
        ASSERT_NEAR(partial_[index], expected_partial_[index], sees_nothing ? 0 : allowed.partial)
            << "row " << row << " dim " << dim;
    }
}

void AttentionCase::run_reference() {
    if (!expected_lse_.empty()) return;
    expected_partial_.assign(partial_.size(), kPoison);
    expected_lse_.assign(lse_.size(), kPoison);
    attention_reference(work(), expected_partial_, expected_lse_);
}

void AttentionCase::run_and_compare(const std::function<void(const Attention&)>& attend, double weight_roundoff) {
    SCOPED_TRACE(shape_.to_string());
    const std::size_t rows = std::size_t{1} * row_count_ * shape_.kv_heads * shape_.group;
    partial_.assign(rows * shape_.head_dim, kPoison);
    lse_.assign(rows, kPoison);
    run_reference();

    attend(work());

    const Tolerance allowed = tolerance(weight_roundoff);
    for (std::size_t row = 0; row < rows; ++row) {
        if (!std::isnan(expected_lse_[row])) {
            compare_row(row, allowed);
            if (testing::Test::HasFatalFailure()) return;
            continue;
        }
        ASSERT_TRUE(is_poison(lse_[row])) << "row " << row << " belongs to no item";
        const auto first = partial_.begin() + row * shape_.head_dim;
        ASSERT_TRUE(std::all_of(first, first + shape_.head_dim, is_poison)) << "row " << row << " belongs to no item";
    }
}

}  // namespace kvgrid::kernels
