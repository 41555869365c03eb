#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kvgrid::analysis {

// Element types of tensors in files: more than kvgrid computes with (core/dtype.h).
enum class TensorType : std::uint8_t {
    boolean,
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    u64,
    i64,
    f8_e4m3,
    f8_e5m2,
    f16,
    bf16,
    f32,
    f64
};

std::size_t byte_size(TensorType type);

// As safetensors files spell it: "F32", "BF16", "BOOL".
const char* name_of(TensorType type);
std::optional<TensorType> parse_tensor_type(std::string_view name);
std::string tensor_type_names();  // of all, with spaces between

// Bytes of `shape` elements of `type`, 1 element for no extents; nothing where a product does not fit 64 bits.
std::optional<std::uint64_t> byte_count_of(TensorType type, std::span<const std::uint64_t> shape);

}  // namespace kvgrid::analysis
