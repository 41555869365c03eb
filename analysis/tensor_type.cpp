#include "analysis/tensor_type.h"

#include <array>

namespace kvgrid::analysis {
namespace {

struct TypeRow {
    TensorType type;
    const char* name;
    std::size_t bytes;
};

constexpr std::array<TypeRow, 15> kTypes{{
    {TensorType::boolean, "BOOL", 1},
    {TensorType::u8, "U8", 1},
    {TensorType::i8, "I8", 1},
    {TensorType::u16, "U16", 2},
    {TensorType::i16, "I16", 2},
    {TensorType::u32, "U32", 4},
    {TensorType::i32, "I32", 4},
    {TensorType::u64, "U64", 8},
    {TensorType::i64, "I64", 8},
    {TensorType::f8_e4m3, "F8_E4M3", 1},
    {TensorType::f8_e5m2, "F8_E5M2", 1},
    {TensorType::f16, "F16", 2},
    {TensorType::bf16, "BF16", 2},
    {TensorType::f32, "F32", 4},
    {TensorType::f64, "F64", 8},
}};

const TypeRow& row_of(TensorType type) {
    return kTypes[static_cast<std::size_t>(type)];
}

}  // namespace

std::size_t byte_size(TensorType type) {
    return row_of(type).bytes;
}

const char* name_of(TensorType type) {
    return row_of(type).name;
}

std::optional<TensorType> parse_tensor_type(std::string_view name) {
    for (const TypeRow& row : kTypes)
        if (name == row.name) return row.type;
    return std::nullopt;
}

std::string tensor_type_names() {
    std::string names;
    for (const TypeRow& row : kTypes) names += (names.empty() ? "" : " ") + std::string(row.name);
    return names;
}

std::optional<std::uint64_t> byte_count_of(TensorType type, std::span<const std::uint64_t> shape) {
    std::uint64_t bytes = byte_size(type);
    for (std::uint64_t extent : shape)
        if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
    return bytes;
}

}  // namespace kvgrid::analysis
