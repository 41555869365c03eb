// merge_parts_cpu equals the fp64 reference within the rounding of f32 and of the merged dtype; parts without tokens weigh exactly
// 0, even if their partials are NaN; heads that it was not asked for are untouched. Merging the parts of a split stream gives the
// attention over the whole.

#include "kernels/merge_parts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/simd_targets.h"
#include "tests/unit/kernels/attention_case.h"
#include "tests/unit/kernels/test_seed.h"
// The targets' list comes first.
#include "hwy/highway.h"

namespace kvgrid::kernels {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
constexpr Dtype kDtypes[] = {Dtype::f32, Dtype::f16, Dtype::bf16};

struct Shape {
    int part_count, token_count, head_count, head_dim;
    Dtype dtype;

    int row_count() const { return token_count * head_count; }
};

// Random partials and lse of each part, one after the other with a gap; merged is [token_count][head_count + 3][head_dim], of
// which heads 2 ... are ours.
struct Parts {
    Parts(const Shape& parts_shape, std::mt19937_64& random) : shape(parts_shape) {
        std::normal_distribution<float> normal;
        const std::size_t rows = shape.row_count();
        stride = rows * (shape.head_dim + 1) + 5;
        floats.assign(stride * shape.part_count, kPoison);
        for (int part = 0; part < shape.part_count; ++part) {
            for (std::size_t index = 0; index < rows * (shape.head_dim + 1); ++index) {
                floats[part * stride + index] = normal(random) * (index < rows * shape.head_dim ? 1.0f : 5.0f);
            }
        }
        merged.assign(
            std::size_t{1} * shape.token_count * (shape.head_count + 3) * shape.head_dim * byte_size(shape.dtype),
            std::byte{0xab});
    }

    float& lse(int part, int row) {
        return floats[part * stride + std::size_t{1} * shape.row_count() * shape.head_dim + row];
    }
    float* partial(int part, int row) { return &floats[part * stride + std::size_t{1} * row * shape.head_dim]; }
    void empty(int part, int row) {
        lse(part, row) = kNothing;
        std::fill_n(partial(part, row), shape.head_dim, kPoison);
    }
    MergeParts work() {
        const std::size_t partial_size = std::size_t{1} * shape.row_count() * shape.head_dim;
        return {.partial = floats,
                .lse = std::span<const float>(floats).subspan(partial_size),
                .part_stride = stride,
                .part_count = shape.part_count,
                .token_count = shape.token_count,
                .head_count = shape.head_count,
                .head_dim = shape.head_dim,
                .merged = merged,
                .merged_dtype = shape.dtype,
                .merged_heads = shape.head_count + 3,
                .first_head = 2};
    }
    float merged_at(int row, int dim) const {
        const int token = row / shape.head_count;
        const int head = row % shape.head_count + 2;
        const std::size_t index = (std::size_t{1} * token * (shape.head_count + 3) + head) * shape.head_dim + dim;
        return load_element(merged.data(), index, shape.dtype);
    }

    Shape shape;
    std::size_t stride;
    std::vector<float> floats;
    std::vector<std::byte> merged;
};

// Weights come from f32: an lse of size up to 20 and its difference, rounded, times exp's and the sums' own errors: 64 u in all,
// relative to the largest partial (6 at most); then one rounding to the merged dtype, or half of the least subnormal f16.
void compare(Parts& parts) {
    const Shape& shape = parts.shape;
    std::vector<double> expected(std::size_t{1} * shape.row_count() * shape.head_dim, kPoison);
    merge_parts_reference(parts.work(), expected);

    merge_parts_cpu(parts.work());

    for (int row = 0; row < shape.row_count(); ++row) {
        for (int dim = 0; dim < shape.head_dim; ++dim) {
            const double value = expected[std::size_t{1} * row * shape.head_dim + dim];
            const double allowed =
                6 * 64 * unit_roundoff(Dtype::f32) + std::abs(value) * unit_roundoff(shape.dtype) + 0x1p-25;
            ASSERT_NEAR(parts.merged_at(row, dim), value, value == 0 ? 0 : allowed)
                << name_of(shape.dtype) << " parts " << shape.part_count << " row " << row << " dim " << dim;
        }
    }
}

class MergePartsCpu : public testing::Test {
  protected:
    std::mt19937_64 random_{test_seed()};
};

TEST_F(MergePartsCpu, AgreesWithTheReference) {
    for (Dtype dtype : kDtypes) {
        for (int part_count : {1, 2, 3, 9}) {
            for (int head_dim : {4, 32, 40, 200}) {
                Parts parts({part_count, 3, 5, head_dim, dtype}, random_);
                compare(parts);
            }
        }
    }
}

TEST_F(MergePartsCpu, GivesNoWeightToPartsWithoutTokens) {
    for (Dtype dtype : kDtypes) {
        Parts parts({3, 2, 4, 40, dtype}, random_);
        for (int row = 0; row < parts.shape.row_count(); ++row) {
            for (int part = 0; part < 3; ++part) {
                if ((row >> part & 1) != 0) parts.empty(part, row);
            }
        }

        compare(parts);

        EXPECT_EQ(parts.merged_at(7, 0), 0) << "no part has tokens for row 7";
    }
}

TEST_F(MergePartsCpu, OnlyConvertsWhatOnePartAloneHas) {
    for (Dtype dtype : kDtypes) {
        Parts parts({2, 1, 1, 40, dtype}, random_);
        parts.empty(0, 0);

        merge_parts_cpu(parts.work());

        for (int dim = 0; dim < 40; ++dim) {
            std::byte element[4];
            store_element(element, 0, dtype, parts.partial(1, 0)[dim]);
            EXPECT_EQ(parts.merged_at(0, dim), load_element(element, 0, dtype));
        }
    }
}

TEST_F(MergePartsCpu, LeavesOtherHeadsUntouched) {
    Parts parts({2, 3, 4, 40, Dtype::bf16}, random_);
    const std::size_t row_bytes = 40 * 2;

    merge_parts_cpu(parts.work());

    for (int token = 0; token < 3; ++token) {
        for (int head : {0, 1, 6}) {
            const std::byte* row = parts.merged.data() + (token * 7 + head) * row_bytes;
            EXPECT_TRUE(std::all_of(row, row + row_bytes, [](std::byte byte) { return byte == std::byte{0xab}; }));
        }
    }
}

TEST_F(MergePartsCpu, SurvivesSumsFarApart) {
    Parts parts({3, 1, 1, 32, Dtype::f32}, random_);
    parts.lse(0, 0) = -1e30f;
    parts.lse(1, 0) = 1e30f;
    parts.lse(2, 0) = 3;

    merge_parts_cpu(parts.work());

    for (int dim = 0; dim < 32; ++dim) EXPECT_EQ(parts.merged_at(0, dim), parts.partial(1, 0)[dim]);
}

TEST_F(MergePartsCpu, ShowsANaN) {
    Parts parts({2, 1, 2, 32, Dtype::f32}, random_);
    parts.partial(0, 0)[3] = kPoison;
    parts.lse(1, 1) = kPoison;

    merge_parts_cpu(parts.work());

    EXPECT_TRUE(std::isnan(parts.merged_at(0, 3)));
    EXPECT_FALSE(std::isnan(parts.merged_at(0, 4)));
    EXPECT_TRUE(std::isnan(parts.merged_at(1, 0)));
}

// Halves, neighbours of halves, subnormals, the border to infinity, and NaN, on every instruction set.
TEST_F(MergePartsCpu, RoundsAsTheScalarConversionsDo) {
    std::vector<float> values;
    for (std::uint32_t high = 0; high < 0x8000; ++high) {
        for (std::uint32_t low : {0x0000u, 0x0fffu, 0x1000u, 0x1001u, 0x3000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
            values.push_back(std::bit_cast<float>(high << 16 | low));
            values.push_back(-values.back());
        }
    }
    const std::vector<float> lse(values.size() / 32, 0.0f);
    for (std::int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
        hwy::SetSupportedTargetsForTest(rest & -rest);
        hwy::GetChosenTarget().DeInit();
        for (Dtype dtype : {Dtype::f16, Dtype::bf16}) {
            std::vector<std::byte> merged(values.size() * 2);
            merge_parts_cpu({values, lse, 0, 1, static_cast<int>(lse.size()), 1, 32, merged, dtype, 1, 0});
            for (std::size_t index = 0; index < values.size(); ++index) {
                std::byte element[2];
                store_element(element, 0, dtype, values[index]);
                const float expected = load_element(element, 0, dtype);
                const float rounded = load_element(merged.data(), index, dtype);
                ASSERT_TRUE(rounded == expected || (std::isnan(rounded) && std::isnan(expected)))
                    << name_of(dtype) << " of " << values[index] << " on " << hwy::TargetName(rest & -rest);
            }
        }
    }
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
}

TEST_F(MergePartsCpu, RefusesArgumentsThatBreakARule) {
    const auto refused = [&](auto break_promise) {
        Parts parts({2, 3, 4, 40, Dtype::bf16}, random_);
        const std::vector<std::byte> before = parts.merged;
        MergeParts work = parts.work();
        break_promise(work);
        EXPECT_THROW(merge_parts_cpu(work), std::invalid_argument);
        EXPECT_EQ(parts.merged, before);
    };
    refused([](MergeParts& work) { work.part_count = 0; });
    refused([](MergeParts& work) { work.part_count = 4; });
    refused([](MergeParts& work) { work.token_count = -1; });
    refused([](MergeParts& work) { work.first_head = 4; });
    refused([](MergeParts& work) { work.first_head = -1; });
    refused([](MergeParts& work) { work.merged = work.merged.first(work.merged.size() - 1); });
    refused([](MergeParts& work) { work.lse = work.lse.first(work.part_stride); });
    refused([](MergeParts& work) { work.partial = work.partial.first(work.part_stride); });
}

// Each part of a split stream errs by at most AttentionCase's tolerance; with |v| below 6 that is less than 1e-4.
TEST_F(MergePartsCpu, MakesTheWholeOutOfAttentionOverSequenceParts) {
    constexpr int kParts = 3, kHeadDim = 64;
    const std::uint64_t seed = random_();
    ThreadPool threads(2);
    AttentionCase whole({.items = {{.length = 1000, .query_count = 4}}}, seed);
    whole.run_and_compare(threads);
    const std::size_t row_count = whole.lse().size();
    std::vector<float> partial, lse;
    for (int part = 0; part < kParts; ++part) {
        AttentionCase one({.items = {{.length = 1000, .query_count = 4, .part_count = kParts, .part = part}}}, seed);
        one.run_and_compare(threads);
        partial.insert(partial.end(), one.partial().begin(), one.partial().end());
        lse.insert(lse.end(), one.lse().begin(), one.lse().end());
        lse.resize(partial.size());
    }
    std::vector<std::byte> merged(row_count * kHeadDim * sizeof(float));

    merge_parts_cpu({partial, lse, row_count * kHeadDim, kParts, static_cast<int>(row_count), 1, kHeadDim, merged,
                     Dtype::f32, 1, 0});

    for (std::size_t index = 0; index < row_count * kHeadDim; ++index) {
        if (std::isnan(whole.lse()[index / kHeadDim])) continue;  // a row of no item
        ASSERT_NEAR(load_element(merged.data(), index, Dtype::f32), whole.partial()[index], 1e-4);
    }
}

}  // namespace
}  // namespace kvgrid::kernels
