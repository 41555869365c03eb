#include "core/dtype.h"

#include <cstring>

namespace kvgrid {

namespace {

constexpr std::uint32_t kF32Infinity = 0x7f800000;
constexpr std::uint32_t kF16MinNormal = 0x38800000;  // 2^-14, as f32
constexpr std::uint32_t kF16Overflow =
    0x477ff000;  // 65520, as f32: half way from the largest f16 to 2^16, ties to even

// bits / 2^shift, rounded to nearest even; 1 <= shift <= 24. A carry out of the mantissa lands in the exponent, as it
// should.
std::uint32_t round_shift(std::uint32_t bits, unsigned shift) {
    const std::uint32_t half = 1u << (shift - 1);
    const std::uint32_t rest = bits & ((1u << shift) - 1);
    const std::uint32_t quotient = bits >> shift;
    const bool up = rest > half || (rest == half && (quotient & 1) != 0);
    return quotient + (up ? 1 : 0);
}

// Of a finite f32 below 2^-14: a multiple of 2^-24, which is what an f16 without exponent counts.
std::uint32_t f16_subnormal(std::uint32_t magnitude) {
    const unsigned shift = 126 - (magnitude >> 23);
    if (shift > 24) return 0;  // below half of the smallest f16
    return round_shift((magnitude & 0x7fffff) | 0x800000, shift);
}

std::uint32_t f16_magnitude(std::uint32_t magnitude) {
    if (magnitude > kF32Infinity) {
        // A NaN keeps the leading bits of its payload; where those are all 0, one bit keeps it from becoming infinity.
        const std::uint32_t payload = (magnitude >> 13) & 0x3ff;
        return 0x7c00 | (payload != 0 ? payload : 0x200);
    }
    if (magnitude >= kF16Overflow) return 0x7c00;
    if (magnitude < kF16MinNormal) return f16_subnormal(magnitude);
    return round_shift(magnitude - (112u << 23), 13);  // exponent bias 127 -> 15
}

}  // namespace

const char* name_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32:
            return "f32";
        case Dtype::f16:
            return "f16";
        case Dtype::bf16:
            return "bf16";
    }
    return "unknown";
}

std::optional<Dtype> parse_dtype(std::string_view name) {
    if (name == "f32" || name == "float32") return Dtype::f32;
    if (name == "f16" || name == "float16") return Dtype::f16;
    if (name == "bf16" || name == "bfloat16") return Dtype::bf16;
    return std::nullopt;
}

float float_from_f16(std::uint16_t bits) {
    const std::uint32_t sign = (bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fu;
    const std::uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 0) {
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // exact, and never an f32 subnormal
        return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
    }
    const std::uint32_t rebased = exponent == 0x1f ? 0xffu : exponent + 112;
    return std::bit_cast<float>(sign | (rebased << 23) | (mantissa << 13));
}

std::uint16_t f16_from_float(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return static_cast<std::uint16_t>(((bits >> 16) & 0x8000u) | f16_magnitude(bits & 0x7fffffff));
}

std::uint16_t bf16_from_float(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffff) > kF32Infinity) {
        const std::uint32_t payload = (bits >> 16) & 0x7f;
        return static_cast<std::uint16_t>((bits >> 16) | (payload != 0 ? 0 : 0x40));
    }
    return static_cast<std::uint16_t>(round_shift(bits, 16));  // beyond the largest bf16 the carry makes infinity
}

float load_element(const std::byte* base, std::size_t index, Dtype dtype) {
    const std::byte* from = base + index * byte_size(dtype);
    if (dtype == Dtype::f32) {
        float value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return dtype == Dtype::f16 ? float_from_f16(bits) : float_from_bf16(bits);
}

void store_element(std::byte* base, std::size_t index, Dtype dtype, float value) {
    std::byte* to = base + index * byte_size(dtype);
    if (dtype == Dtype::f32) {
        std::memcpy(to, &value, sizeof value);
        return;
    }
    const std::uint16_t bits = dtype == Dtype::f16 ? f16_from_float(value) : bf16_from_float(value);
    std::memcpy(to, &bits, sizeof bits);
}

}  // namespace kvgrid
