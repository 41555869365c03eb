#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/dtype.h"

namespace kvgrid::python {

namespace nb = nanobind;

using Shape = std::array<std::int64_t, 3>;  // [tokens, heads, head_dim]

// What a tensor must be.
struct TensorRule {
    const char* name;  // "q", in messages
    Shape shape;
    Dtype dtype;
};

// A caller's tensor that is read: whatever exports DLPack or the buffer protocol, in the CPU's memory. bf16 may come as uint16, since the
// buffer protocol has no such type.
//
//   Errors  invalid_argument: no tensor, another shape or dtype. unsupported: not in the CPU's memory.
//   Cost    nothing is copied where the elements lie one after the other; otherwise rows are gathered once.
class InputTensor {
  public:
    InputTensor() = default;  // none: no bytes
    InputTensor(nb::handle tensor, const TensorRule& rule);

    // Without the GIL, too. Valid while this lives.
    std::span<const std::byte> bytes();

  private:
    nb::ndarray<nb::ro> tensor_;
    std::span<const std::byte> contiguous_;
    std::vector<std::byte> gathered_;
    bool strided_ = false;
    std::size_t element_bytes_ = 0;
};

// A caller's tensor that is written; it must be contiguous. The other rules are those above.
class OutputTensor {
  public:
    OutputTensor(nb::handle tensor, const TensorRule& rule);
    std::span<std::byte> bytes() const { return bytes_; }

  private:
    nb::ndarray<> tensor_;
    std::span<std::byte> bytes_;
};

// A caller's tensor in the memory of a GPU, contiguous; nobody looks at its values here. It exports DLPack, or comes as what kvgrid.tensors.on_gpu has
// written down of it: (address, shape, dtype by ModelSpec's name, GPU); torch takes five microseconds to export one.
//
//   Errors  invalid_argument: no tensor, another shape or dtype, elements that do not lie one after the other, not on a GPU.
class GpuTensor {
  public:
    GpuTensor() = default;  // none: no bytes
    enum class Use { read, written };
    GpuTensor(nb::handle tensor, const TensorRule& rule, Use use);

    const std::byte* data() const { return data_; }  // a device pointer
    std::size_t bytes() const { return bytes_; }
    int gpu() const { return gpu_; }  // as CUDA numbers them in this process

  private:
    template <class Array>
    void look_at(const Array& array, const TensorRule& rule);
    void read_tuple(const nb::tuple& written_down, const TensorRule& rule);

    nb::ndarray<nb::ro> read_;
    nb::ndarray<> written_;
    const std::byte* data_ = nullptr;
    std::size_t bytes_ = 0;
    int gpu_ = -1;
};

// A tensor that owns its bytes and exports DLPack and, but for bf16, the buffer protocol.
nb::object owned_tensor(std::vector<std::byte> bytes, const Shape& shape, Dtype dtype);
// One in GPU memory that somebody else owns, who lives as long as it.
nb::object gpu_tensor(void* data, int gpu, std::shared_ptr<void> owner, const Shape& shape, Dtype dtype);

}  // namespace kvgrid::python
