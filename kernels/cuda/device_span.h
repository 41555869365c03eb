#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

struct CUstream_st;

namespace kvgrid::kernels {

// A CUDA stream: the runtime's cudaStream_t, without its headers.
using Stream = CUstream_st*;

// Memory of the current device. Like std::span, it owns nothing; the host must not read through it.
template <class T>
struct DeviceSpan {
    T* data = nullptr;
    std::size_t size = 0;

    template <class Const>
    requires(!std::is_const_v<T> && std::is_same_v<Const, const T>) operator DeviceSpan<Const>() const {
        return {data, size};
    }
};

// The device memory that page indices point into; pages as in DevicePageLayout, aligned to 128 bytes.
struct DeviceSlab {
    const std::byte* base = nullptr;
    std::size_t page_bytes = 0;
};

}  // namespace kvgrid::kernels
