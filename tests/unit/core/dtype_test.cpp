// Conversions are exact where they can be and round to nearest even where they cannot. Shown exhaustively: every f16
// and bf16 pattern, and around every midpoint between neighbours.

#include "core/dtype.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

namespace kvgrid {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What the IEEE format says, by arithmetic instead of by bits.
double f16_by_definition(std::uint32_t bits) {
    const int exponent = (bits >> 10) & 31;
    const int mantissa = bits & 1023;
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(F16, EveryPatternHasTheValueThatTheFormatDefines) {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const float value = float_from_f16(static_cast<std::uint16_t>(bits));
        if ((bits & 0x7fff) < 0x7c00) {
            ASSERT_EQ(value, f16_by_definition(bits)) << bits;
            ASSERT_EQ(std::signbit(value), bits >= 0x8000) << bits;
        } else if ((bits & 0x7fff) == 0x7c00) {
            ASSERT_EQ(value, bits < 0x8000 ? kInfinity : -kInfinity);
        } else {
            ASSERT_TRUE(std::isnan(value)) << bits;
        }
    }
}

TEST(F16, EveryPatternSurvivesTheWayToFloatAndBack) {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        ASSERT_EQ(f16_from_float(float_from_f16(static_cast<std::uint16_t>(bits))), bits);
    }
}

TEST(F16, AroundEveryMidpointTheNearerNeighbourWinsAndTiesGoToEven) {
    // The last step is from the largest finite number, 65504, to where 65536 would be: from the midpoint on it
    // overflows.
    for (std::uint32_t low = 0; low < 0x7c00; ++low) {
        const float upper = low == 0x7bff ? 65536.f : float_from_f16(static_cast<std::uint16_t>(low + 1));
        const float middle = (float_from_f16(static_cast<std::uint16_t>(low)) + upper) / 2;  // exact: 12 bits
        const std::uint32_t even = low + (low & 1);
        ASSERT_EQ(f16_from_float(middle), even) << low;
        ASSERT_EQ(f16_from_float(std::nextafter(middle, 0.f)), low) << low;
        ASSERT_EQ(f16_from_float(std::nextafter(middle, kInfinity)), low + 1) << low;
        ASSERT_EQ(f16_from_float(-middle), even | 0x8000) << low;
    }
}

TEST(F16, OverflowIsInfinityAndUnderflowIsASignedZero) {
    EXPECT_EQ(f16_from_float(std::numeric_limits<float>::max()), 0x7c00);
    EXPECT_EQ(f16_from_float(-kInfinity), 0xfc00);
    EXPECT_EQ(f16_from_float(65519.996f), 0x7bff);
    EXPECT_EQ(f16_from_float(65520.f), 0x7c00);
    EXPECT_EQ(f16_from_float(-std::numeric_limits<float>::denorm_min()), 0x8000);
    EXPECT_EQ(f16_from_float(std::numeric_limits<float>::min()), 0);
}

TEST(F16, ANanWhosePayloadIsCutAwayStaysNan) {
    const auto only_low_bits = std::bit_cast<float>(0x7f800001u);
    EXPECT_TRUE(std::isnan(float_from_f16(f16_from_float(only_low_bits))));
    EXPECT_TRUE(std::isnan(float_from_f16(f16_from_float(-std::numeric_limits<float>::quiet_NaN()))));
}

TEST(Bf16, EveryPatternSurvivesTheWayToFloatAndBack) {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        ASSERT_EQ(bf16_from_float(float_from_bf16(static_cast<std::uint16_t>(bits))), bits);
    }
}

TEST(Bf16, AroundEveryMidpointTheNearerNeighbourWinsAndTiesGoToEven) {
    for (std::uint32_t low = 0; low < 0x7f80; ++low) {
        const std::uint32_t middle = low << 16 | 0x8000;
        const std::uint32_t even = low + (low & 1);
        ASSERT_EQ(bf16_from_float(std::bit_cast<float>(middle)), even) << low;
        ASSERT_EQ(bf16_from_float(std::bit_cast<float>(middle - 1)), low) << low;
        ASSERT_EQ(bf16_from_float(std::bit_cast<float>(middle + 1)), low + 1) << low;
        ASSERT_EQ(bf16_from_float(-std::bit_cast<float>(middle)), even | 0x8000) << low;
    }
}

TEST(Bf16, OverflowIsInfinityAndNanStaysNan) {
    EXPECT_EQ(bf16_from_float(std::numeric_limits<float>::max()), 0x7f80);
    EXPECT_EQ(bf16_from_float(-kInfinity), 0xff80);
    EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_float(std::bit_cast<float>(0x7f800001u)))));
    EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_float(std::bit_cast<float>(0xffffffffu)))));
}

TEST(Dtype, NamesAreReadBackAlsoInTheLongForm) {
    for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) EXPECT_EQ(parse_dtype(name_of(dtype)), dtype);
    EXPECT_EQ(parse_dtype("float32"), Dtype::f32);
    EXPECT_EQ(parse_dtype("float16"), Dtype::f16);
    EXPECT_EQ(parse_dtype("bfloat16"), Dtype::bf16);
    for (const char* name : {"", "F32", "f64", "f16 ", "fp8"}) EXPECT_EQ(parse_dtype(name), std::nullopt) << name;
}

TEST(Dtype, UnitRoundoffIsHalfTheDistanceFromOneToTheNextNumber) {
    EXPECT_EQ(unit_roundoff(Dtype::f32), (std::nextafter(1.f, 2.f) - 1.f) / 2);
    EXPECT_EQ(unit_roundoff(Dtype::f16), (float_from_f16(0x3c01) - 1) / 2);
    EXPECT_EQ(unit_roundoff(Dtype::bf16), (float_from_bf16(0x3f81) - 1) / 2);
}

TEST(Dtype, AStoredElementIsLoadedBackRoundedAndItsNeighboursAreLeftAlone) {
    for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
        // One byte off, so that nothing is aligned.
        std::array<std::byte, 1 + 3 * 4> memory{};
        std::byte* base = memory.data() + 1;
        for (std::size_t index : {0, 1, 2}) store_element(base, index, dtype, 1.f);
        const float value = -3.14159274f;

        store_element(base, 1, dtype, value);

        EXPECT_NEAR(load_element(base, 1, dtype), value, 4 * unit_roundoff(dtype)) << name_of(dtype);
        EXPECT_EQ(load_element(base, 0, dtype), 1.f);
        EXPECT_EQ(load_element(base, 2, dtype), 1.f);
    }
}

}  // namespace
}  // namespace kvgrid
