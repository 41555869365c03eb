#pragma once

#include <cstdint>

namespace kvgrid::kernels {

// How numbers become e4m3 times a scale: pure functions that host and device share. docs/decisions/0015-fp8-pages.md.
//
//   A scale is the smallest power of two by which no finite number of its block (the K, or the V, of a page) exceeds 448, the largest e4m3
//   number; within 2^-40 and 2^40, so that sums over pages of different scales stay within f32. An element is the number divided by the
//   scale, exactly, then rounded to nearest even. What e4m3 cannot hold becomes NaN: NaN, infinity, magnitudes above 448 * 2^40.
inline constexpr float kE4m3Max = 448;
inline constexpr int kScaleExponentMin = -40;
inline constexpr int kScaleExponentMax = 40;

// Of the largest finite magnitude, as the bits of an f32.
constexpr int scale_exponent_of(std::uint32_t largest_bits) {
    // 448 is 1.75 * 2^8: a mantissa above 1.75 carries into the exponent.
    const int exponent = static_cast<int>((largest_bits + 0x1fffff) >> 23) - 127 - 8;
    return exponent < kScaleExponentMin ? kScaleExponentMin
                                        : (exponent > kScaleExponentMax ? kScaleExponentMax : exponent);
}

constexpr std::uint32_t bits_of_power_of_two(int exponent) {
    return static_cast<std::uint32_t>(127 + exponent) << 23;
}
constexpr int exponent_of_power_of_two(std::uint32_t bits) {
    return static_cast<int>(bits >> 23) - 127;
}

}  // namespace kvgrid::kernels
