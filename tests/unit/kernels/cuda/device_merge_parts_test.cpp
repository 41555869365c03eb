// merge_parts_on_device equals the fp64 reference within f32's rounding and that of the output; parts without tokens weigh nothing even if
// their partials are NaN; other heads keep their poison; one part alone is converted only.

#include "kernels/cuda/device_merge_parts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/device_buffer.h"
#include "kernels/merge_parts.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Parts {
    Parts(int parts, int tokens, int heads, int dims, std::mt19937_64& random)
        : part_count(parts), token_count(tokens), head_count(heads), head_dim(dims) {
        std::normal_distribution<float> normal;
        stride = static_cast<std::size_t>(tokens) * heads * (dims + 4);
        memory.resize(parts * stride + stride);
        for (float& value : memory) value = normal(random);
        lse_offset = static_cast<std::size_t>(tokens) * heads * dims;
    }

    float* lse(int part, std::size_t row) { return &memory[part * stride + lse_offset + row]; }
    float* partial(int part, std::size_t row) { return &memory[part * stride + row * head_dim]; }

    std::vector<double> reference() const {
        std::vector<double> merged(lse_offset);
        const MergeParts work{.partial = memory,
                              .lse = std::span(memory).subspan(lse_offset),
                              .part_stride = stride,
                              .part_count = part_count,
                              .token_count = token_count,
                              .head_count = head_count,
                              .head_dim = head_dim,
                              .merged = {},
                              .merged_dtype = Dtype::f32,
                              .merged_heads = head_count,
                              .first_head = 0};
        merge_parts_reference(work, merged);
        return merged;
    }

    std::vector<std::byte> on_device(Dtype dtype, int merged_heads, int first_head) const {
        const DeviceArray<float> device{std::span<const float>(memory)};
        const std::size_t elements = static_cast<std::size_t>(token_count) * merged_heads * head_dim;
        const std::vector<std::byte> poison(elements * byte_size(dtype), std::byte{0xff});
        const DeviceArray<std::byte> merged{std::span<const std::byte>(poison)};
        const DeviceSpan<float> all = device.span();
        merge_parts_on_device({.partial = all,
                               .lse = {all.data + lse_offset, all.size - lse_offset},
                               .part_stride = stride,
                               .part_count = part_count,
                               .token_count = token_count,
                               .head_count = head_count,
                               .head_dim = head_dim,
                               .merged = merged.span(),
                               .merged_dtype = dtype,
                               .merged_heads = merged_heads,
                               .first_head = first_head},
                              nullptr);
        return merged.download();
    }

    int part_count, token_count, head_count, head_dim;
    std::size_t stride, lse_offset;
    std::vector<float> memory;
};

// Values are of size 1 to 5: sums of at most 17 terms and one rounding to the dtype.
void expect_near(float value, double expected, Dtype dtype) {
    const double allowed = (unit_roundoff(dtype) + 64 * unit_roundoff(Dtype::f32)) * (std::abs(expected) + 1e-2) + 1e-6;
    ASSERT_NEAR(value, expected, allowed);
}

class DeviceMergePartsTest : public testing::Test {
  protected:
    std::mt19937_64 random_{test_seed()};
};

TEST_F(DeviceMergePartsTest, AgreesWithTheReferenceAndLeavesOtherHeadsUntouched) {
    for (Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
        for (int part_count : {1, 2, 3, 17}) {
            for (int head_dim : {32, 64, 96, 256}) {
                const Parts parts(part_count, 5, 3, head_dim, random_);
                const std::vector<double> expected = parts.reference();
                const std::vector<std::byte> merged = parts.on_device(dtype, 7, 2);
                for (int token = 0; token < 5; ++token) {
                    for (int head = 0; head < 7; ++head) {
                        for (int dim = 0; dim < head_dim; ++dim) {
                            const std::size_t at = (std::size_t{1} * token * 7 + head) * head_dim + dim;
                            const float value = load_element(merged.data(), at, dtype);
                            if (head < 2 || head >= 5) {
                                ASSERT_TRUE(std::isnan(value));
                                continue;
                            }
                            const std::size_t row = token * 3 + head - 2;
                            expect_near(value, expected[row * head_dim + dim], dtype);
                        }
                    }
                }
            }
        }
    }
}

TEST_F(DeviceMergePartsTest, GivesNoWeightToPartsWithoutTokens) {
    Parts parts(3, 1, 2, 64, random_);
    *parts.lse(1, 0) = -kInfinity;
    for (int dim = 0; dim < 64; ++dim) parts.partial(1, 0)[dim] = kNaN;
    for (int part = 0; part < 3; ++part) *parts.lse(part, 1) = -kInfinity;

    const std::vector<std::byte> merged = parts.on_device(Dtype::f32, 2, 0);

    const std::vector<double> expected = parts.reference();
    for (int dim = 0; dim < 64; ++dim) {
        expect_near(load_element(merged.data(), dim, Dtype::f32), expected[dim], Dtype::f32);
        EXPECT_EQ(load_element(merged.data(), 64 + dim, Dtype::f32), 0);
    }
}

TEST_F(DeviceMergePartsTest, SurvivesSumsFarApart) {
    Parts parts(2, 1, 1, 64, random_);
    *parts.lse(0, 0) = 1000;
    *parts.lse(1, 0) = -1000;

    const std::vector<std::byte> merged = parts.on_device(Dtype::f32, 1, 0);

    for (int dim = 0; dim < 64; ++dim) {
        EXPECT_EQ(load_element(merged.data(), dim, Dtype::f32), parts.partial(0, 0)[dim]);
    }
}

TEST_F(DeviceMergePartsTest, RefusesArgumentsThatBreakARule) {
    auto* const somewhere = reinterpret_cast<float*>(std::uintptr_t{4096});
    const auto refuse = [&](const char* what, auto break_promise) {
        DeviceMergeParts work{.partial = {somewhere, 1000},
                              .lse = {somewhere, 1000},
                              .part_stride = 400,
                              .part_count = 2,
                              .token_count = 2,
                              .head_count = 2,
                              .head_dim = 64,
                              .merged = {reinterpret_cast<std::byte*>(somewhere), 2 * 3 * 64 * 4},
                              .merged_dtype = Dtype::f32,
                              .merged_heads = 3,
                              .first_head = 1};
        break_promise(work);
        EXPECT_THROW(merge_parts_on_device(work, nullptr), std::invalid_argument) << what;
    };
    refuse("parts", [](DeviceMergeParts& work) { work.part_count = 0; });
    refuse("heads", [](DeviceMergeParts& work) { work.first_head = 2; });
    refuse("head_dim", [](DeviceMergeParts& work) { work.head_dim = 66; });
    refuse("partial", [](DeviceMergeParts& work) { work.partial.size = 400 + 255; });
    refuse("lse", [](DeviceMergeParts& work) { work.lse.size = 403; });
    refuse("merged", [](DeviceMergeParts& work) { work.merged.size -= 1; });
    refuse("stride", [](DeviceMergeParts& work) { work.part_stride = 401; });
}

}  // namespace
}  // namespace kvgrid::kernels
