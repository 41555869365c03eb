#include "client/python/tensor.h"

#include <fmt/format.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
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

[[noreturn]] void wrong_shape(const TensorRule& rule, const std::string& shape) {
    fail(Errc::invalid_argument, fmt::format("{} has shape {}; [{}] is expected: [tokens, heads, head_dim]", rule.name,
                                             shape, fmt::join(rule.shape, ", ")));
}

[[noreturn]] void wrong_dtype(const TensorRule& rule, const std::string& dtype) {
    fail(Errc::invalid_argument,
         fmt::format("{} is of {}; the model's dtype is {}", rule.name, dtype, name_of(rule.dtype)));
}

template <class Array>
void check_is_on_cpu(const Array& tensor, const TensorRule& rule) {
    if (tensor.device_type() == nb::device::cpu::value) return;
    fail(Errc::unsupported, fmt::format("{} is not in the CPU's memory (DLPack device type {}): move it there first, "
                                        "or let all tensors of the call be on one GPU",
                                        rule.name, tensor.device_type()));
}

template <class Array>
void check(const Array& tensor, const TensorRule& rule) {
    const bool shaped = tensor.ndim() == 3 && tensor.shape(0) == static_cast<std::size_t>(rule.shape[0]) &&
                        tensor.shape(1) == static_cast<std::size_t>(rule.shape[1]) &&
                        tensor.shape(2) == static_cast<std::size_t>(rule.shape[2]);
    if (!shaped) wrong_shape(rule, shape_of(tensor));
    const nb::dlpack::dtype expected = dlpack_dtype(rule.dtype);
    const bool bits_of_bf16 = rule.dtype == Dtype::bf16 && tensor.dtype() == nb::dtype<std::uint16_t>();
    if (tensor.dtype() != expected && !bits_of_bf16) wrong_dtype(rule, shown(tensor.dtype()));
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

template <class Array>
void check_is_contiguous(const Array& tensor, const TensorRule& rule) {
    if (is_contiguous(tensor)) return;
    fail(Errc::invalid_argument, fmt::format("{} is not contiguous: elements must lie one after the other", rule.name));
}

constexpr const char* kReadable = "a tensor that exports DLPack or the buffer protocol is expected";
constexpr const char* kWritable = "a tensor that can be written and exports DLPack or the buffer protocol is expected";

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
    : tensor_(imported<nb::ndarray<nb::ro>>(tensor, rule, kReadable)), element_bytes_(byte_size(rule.dtype)) {
    check_is_on_cpu(tensor_, rule);
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
    : tensor_(imported<nb::ndarray<>>(tensor, rule, kWritable)) {
    check_is_on_cpu(tensor_, rule);
    check(tensor_, rule);
    check_is_contiguous(tensor_, rule);
    bytes_ = {static_cast<std::byte*>(tensor_.data()), tensor_.size() * byte_size(rule.dtype)};
}

template <class Array>
void GpuTensor::look_at(const Array& array, const TensorRule& rule) {
    if (array.device_type() != nb::device::cuda::value) {
        fail(Errc::invalid_argument,
             fmt::format("{} is not in a GPU's memory (DLPack device type {}), as other tensors of the call are",
                         rule.name, array.device_type()));
    }
    check(array, rule);
    check_is_contiguous(array, rule);
    data_ = static_cast<const std::byte*>(array.data());
    bytes_ = array.size() * byte_size(rule.dtype);
    gpu_ = array.device_id();
}

void GpuTensor::read_tuple(const nb::tuple& written_down, const TensorRule& rule) {
    const auto shape = nb::cast<std::vector<std::int64_t>>(written_down[1]);
    if (!std::ranges::equal(shape, rule.shape)) wrong_shape(rule, fmt::format("[{}]", fmt::join(shape, ", ")));
    const auto dtype = nb::cast<std::string>(written_down[2]);
    if (dtype != name_of(rule.dtype)) wrong_dtype(rule, dtype);
    data_ = reinterpret_cast<const std::byte*>(nb::cast<std::uintptr_t>(written_down[0]));
    bytes_ = static_cast<std::size_t>(shape[0] * shape[1] * shape[2]) * byte_size(rule.dtype);
    gpu_ = nb::cast<int>(written_down[3]);
}

GpuTensor::GpuTensor(nb::handle tensor, const TensorRule& rule, Use use) {
    if (nb::isinstance<nb::tuple>(tensor)) {
        read_tuple(nb::borrow<nb::tuple>(tensor), rule);
    } else if (use == Use::written) {
        look_at(written_ = imported<nb::ndarray<>>(tensor, rule, kWritable), rule);
    } else {
        look_at(read_ = imported<nb::ndarray<nb::ro>>(tensor, rule, kReadable), rule);
    }
}

nb::object gpu_tensor(void* data, int gpu, std::shared_ptr<void> owner, const Shape& shape, Dtype dtype) {
    auto kept = std::make_unique<std::shared_ptr<void>>(std::move(owner));
    const nb::capsule held(kept.release(),
                           [](void* pointer) noexcept { delete static_cast<std::shared_ptr<void>*>(pointer); });
    const std::array<std::size_t, 3> sizes{static_cast<std::size_t>(shape[0]), static_cast<std::size_t>(shape[1]),
                                           static_cast<std::size_t>(shape[2])};
    return nb::ndarray<nb::array_api>(data, sizes.size(), sizes.data(), held, nullptr, dlpack_dtype(dtype),
                                      nb::device::cuda::value, gpu)
        .cast(nb::rv_policy::reference);
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
