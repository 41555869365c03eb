#include "client/python/tensor.h"

#include <fmt/format.h>

#include <cstring>

#include "client/python/call.h"

namespace kvgrid::python {

namespace {

using Code = nb::dlpack::dtype_code;

nb::dlpack::dtype dlpack_dtype(Dtype dtype) {
    const auto code = dtype == Dtype::bf16 ? Code::Bfloat : Code::Float;
    return {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(8 * byte_size(dtype)), 1};
}

std::string shown(nb::dlpack::dtype dtype) {
    if (dtype == nb::dtype<std::uint16_t>()) return "uint16 or bfloat16";  // whose bits may come so
    const auto code = static_cast<Code>(dtype.code);
    const char* kind = code == Code::Float    ? "float"
                       : code == Code::Bfloat ? "bfloat"
                       : code == Code::Int    ? "int"
                       : code == Code::UInt   ? "uint"
                       : code == Code::Bool   ? "bool"
                                              : "another type of ";
    return fmt::format("{}{}", kind, dtype.bits);
}

template <class Array>
std::string shape_of(const Array& tensor) {
    std::string text = "[";
    for (std::size_t i = 0; i < tensor.ndim(); ++i) text += fmt::format("{}{}", i ? ", " : "", tensor.shape(i));
    return text + "]";
}

template <class Array>
void check(const Array& tensor, const TensorRule& rule) {
    if (tensor.device_type() != nb::device::cpu::value) {
        fail(Errc::unsupported,
             fmt::format("{} is not in the CPU's memory (DLPack device type {}): move it there first", rule.name,
                         tensor.device_type()));
    }
    const bool shaped = tensor.ndim() == 3 && tensor.shape(0) == static_cast<std::size_t>(rule.shape[0]) &&
                        tensor.shape(1) == static_cast<std::size_t>(rule.shape[1]) &&
                        tensor.shape(2) == static_cast<std::size_t>(rule.shape[2]);
    if (!shaped) {
        fail(Errc::invalid_argument, fmt::format("{} has shape {}; [{}] is expected: [tokens, heads, head_dim]",
                                                 rule.name, shape_of(tensor), fmt::join(rule.shape, ", ")));
    }
    const nb::dlpack::dtype expected = dlpack_dtype(rule.dtype);
    const bool bits_of_bf16 = rule.dtype == Dtype::bf16 && tensor.dtype() == nb::dtype<std::uint16_t>();
    if (tensor.dtype() != expected && !bits_of_bf16) {
        fail(Errc::invalid_argument, fmt::format("{} is of {}; the model's dtype is {}", rule.name,
                                                 shown(tensor.dtype()), name_of(rule.dtype)));
    }
}

template <class Array>
Array imported(nb::handle tensor, const TensorRule& rule, const char* needs) {
    Array array;
    if (nb::try_cast(tensor, array, /*convert=*/false)) return array;
    PyErr_Clear();
    const auto type =
        nb::cast<std::string>(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr()))).attr("__name__"));
    fail(Errc::invalid_argument, fmt::format("{} is a {}; {}", rule.name, type, needs));
}

template <class Array>
bool is_contiguous(const Array& tensor) {
    std::int64_t expected = 1;
    for (std::size_t i = tensor.ndim(); i-- > 0;) {
        if (tensor.shape(i) != 1 && tensor.stride(i) != expected) return false;
        expected *= static_cast<std::int64_t>(tensor.shape(i));
    }
    return true;
}

// One row of head_dim elements after the other.
std::vector<std::byte> gathered(const nb::ndarray<nb::ro>& tensor, std::size_t element_bytes) {
    const auto* base = static_cast<const std::byte*>(tensor.data());
    const std::size_t row_elements = tensor.shape(2);
    std::vector<std::byte> bytes(tensor.shape(0) * tensor.shape(1) * row_elements * element_bytes);
    std::byte* to = bytes.data();
    const auto step = [&](int dimension) {
        return tensor.stride(dimension) * static_cast<std::int64_t>(element_bytes);
    };
    for (std::size_t token = 0; token < tensor.shape(0); ++token) {
        for (std::size_t head = 0; head < tensor.shape(1); ++head) {
            const std::byte* row =
                base + static_cast<std::int64_t>(token) * step(0) + static_cast<std::int64_t>(head) * step(1);
            if (tensor.stride(2) == 1) {
                std::memcpy(to, row, row_elements * element_bytes);
                to += row_elements * element_bytes;
                continue;
            }
            for (std::size_t i = 0; i < row_elements; ++i, to += element_bytes)
                std::memcpy(to, row + static_cast<std::int64_t>(i) * step(2), element_bytes);
        }
    }
    return bytes;
}

}  // namespace

InputTensor::InputTensor(nb::handle tensor, const TensorRule& rule)
    : tensor_(imported<nb::ndarray<nb::ro>>(tensor, rule,
                                            "a tensor that exports DLPack or the buffer protocol is expected")),
      element_bytes_(byte_size(rule.dtype)) {
    check(tensor_, rule);
    strided_ = !is_contiguous(tensor_);
    contiguous_ = {static_cast<const std::byte*>(tensor_.data()), tensor_.size() * element_bytes_};
}

std::span<const std::byte> InputTensor::bytes() {
    if (!strided_) return contiguous_;
    if (gathered_.empty()) gathered_ = gathered(tensor_, element_bytes_);
    return gathered_;
}

OutputTensor::OutputTensor(nb::handle tensor, const TensorRule& rule)
    : tensor_(imported<nb::ndarray<>>(
          tensor, rule, "a tensor that can be written and exports DLPack or the buffer protocol is expected")) {
    check(tensor_, rule);
    if (!is_contiguous(tensor_))
        fail(Errc::invalid_argument,
             fmt::format("{} is not contiguous: elements must lie one after the other", rule.name));
    bytes_ = {static_cast<std::byte*>(tensor_.data()), tensor_.size() * byte_size(rule.dtype)};
}

nb::object owned_tensor(std::vector<std::byte> bytes, const Shape& shape, Dtype dtype) {
    auto kept = std::make_unique<std::vector<std::byte>>(std::move(bytes));
    void* data = kept->data();
    const nb::capsule owner(kept.release(),
                            [](void* held) noexcept { delete static_cast<std::vector<std::byte>*>(held); });
    const std::array<std::size_t, 3> sizes{static_cast<std::size_t>(shape[0]), static_cast<std::size_t>(shape[1]),
                                           static_cast<std::size_t>(shape[2])};
    return nb::ndarray<nb::array_api>(data, sizes.size(), sizes.data(), owner, nullptr, dlpack_dtype(dtype))
        .cast(nb::rv_policy::reference);
}

}  // namespace kvgrid::python
