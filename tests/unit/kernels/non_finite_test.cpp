// first_non_finite_cpu names the element that the reference names: at every place of a vector and of a block, for every kind of value
// that is not finite and every kind that only nearly is, in arrays of every length.

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/non_finite.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

constexpr Dtype kDtypes[] = {Dtype::f32, Dtype::f16, Dtype::bf16};
constexpr std::size_t kCount = 1'100;  // several blocks of the widest vectors, and a rest

// Random elements with every bit pattern but those that are not finite.
std::vector<std::byte> finite_elements(std::size_t count, Dtype dtype, std::mt19937_64& random) {
    std::vector<std::byte> bytes(count * byte_size(dtype));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    while (const auto at = first_non_finite_reference(bytes, dtype)) store_element(bytes.data(), *at, dtype, 1);
    return bytes;
}

TEST(FirstNonFinite, IsFoundAtEveryPlace) {
    std::mt19937_64 random(test_seed());
    for (const Dtype dtype : kDtypes) {
        const std::vector<std::byte> finite = finite_elements(kCount, dtype, random);
        EXPECT_EQ(first_non_finite_cpu(finite, dtype), std::nullopt);
        for (std::size_t at = 0; at < kCount; ++at) {
            std::vector<std::byte> bytes = finite;
            store_element(bytes.data(), at, dtype, std::numeric_limits<float>::quiet_NaN());
            ASSERT_EQ(first_non_finite_cpu(bytes, dtype), at) << name_of(dtype);
        }
    }
}

TEST(FirstNonFinite, IsTheFirstOfSeveralInEveryLength) {
    std::mt19937_64 random(test_seed());
    for (const Dtype dtype : kDtypes) {
        std::vector<std::byte> bytes = finite_elements(kCount, dtype, random);
        for (int i = 0; i < 5; ++i)
            store_element(bytes.data(), random() % kCount, dtype, -std::numeric_limits<float>::infinity());
        for (std::size_t count = 0; count <= kCount; ++count) {
            const auto some = std::span(bytes).first(count * byte_size(dtype));
            ASSERT_EQ(first_non_finite_cpu(some, dtype), first_non_finite_reference(some, dtype)) << count;
        }
    }
}

TEST(FirstNonFinite, KnowsInfinitiesAndNansFromTheLargestNumbers) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const Dtype dtype : kDtypes) {
        const float largest = dtype == Dtype::f16 ? 65'504.0f : dtype == Dtype::bf16 ? 0x1.fep127f : 0x1.fffffep127f;
        std::vector<std::byte> bytes(2 * byte_size(dtype));
        for (const float fine : {largest, -largest, 0.0f, -0.0f, 0x1p-133f}) {
            store_element(bytes.data(), 1, dtype, fine);
            EXPECT_EQ(first_non_finite_cpu(bytes, dtype), std::nullopt) << fine;
        }
        for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
            store_element(bytes.data(), 1, dtype, bad);
            EXPECT_EQ(first_non_finite_cpu(bytes, dtype), 1u) << bad;
        }
    }
}

TEST(FirstNonFinite, RefusesHalfElements) {
    const std::vector<std::byte> bytes(8);
    EXPECT_THROW(first_non_finite_cpu(std::span(bytes).first(6), Dtype::f32), std::invalid_argument);
    EXPECT_THROW(first_non_finite_cpu(std::span(bytes).first(3), Dtype::bf16), std::invalid_argument);
    EXPECT_THROW(first_non_finite_cpu(std::span(bytes).subspan(1, 4), Dtype::f32), std::invalid_argument);
}

}  // namespace
}  // namespace kvgrid::kernels
