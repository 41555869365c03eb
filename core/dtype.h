#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kvgrid {

// Element types of q, k, v, o and of the stored cache. The numbers are part of the wire protocol.
enum class Dtype : std::uint8_t { f32 = 1, f16 = 2, bf16 = 3 };

constexpr std::size_t byte_size(Dtype dtype) {
    return dtype == Dtype::f32 ? 4 : 2;
}

const char* name_of(Dtype dtype);                         // "f32", "f16", "bf16"
std::optional<Dtype> parse_dtype(std::string_view name);  // also "float32", "float16", "bfloat16"

// Half of the distance between 1 and the next number: the relative error of one rounding.
constexpr double unit_roundoff(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32:
            return 0x1p-24;
        case Dtype::f16:
            return 0x1p-11;
        case Dtype::bf16:
            return 0x1p-8;
    }
    return 0;
}

// IEEE half precision and bfloat16, rounded to nearest even; NaN stays NaN, overflow becomes infinity.
float float_from_f16(std::uint16_t bits);
std::uint16_t f16_from_float(float value);

inline float float_from_bf16(std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
std::uint16_t bf16_from_float(float value);

// One element of an array of `dtype`. For references and tests, not for inner loops.
float load_element(const std::byte* base, std::size_t index, Dtype dtype);
void store_element(std::byte* base, std::size_t index, Dtype dtype, float value);

}  // namespace kvgrid
