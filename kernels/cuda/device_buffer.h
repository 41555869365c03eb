#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cuda/device_span.h"

namespace kvgrid::kernels {

// Memory of the current device, by cudaMalloc: aligned to 256 bytes, any content. Throws CudaError where it cannot be had.
class DeviceBytes {
  public:
    DeviceBytes() = default;
    explicit DeviceBytes(std::size_t size);
    ~DeviceBytes();
    DeviceBytes(DeviceBytes&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    DeviceBytes& operator=(DeviceBytes&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }

    std::byte* data() const { return data_; }
    std::size_t size() const { return size_; }

    // Wait for the copy, and for all work queued before it. `offset` and sizes in bytes, within the buffer.
    void upload(const void* from, std::size_t bytes, std::size_t offset = 0);
    void download(void* to, std::size_t bytes, std::size_t offset = 0) const;

  private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

// An array of T in device memory.
template <class T>
class DeviceArray {
  public:
    DeviceArray() = default;
    explicit DeviceArray(std::size_t count) : bytes_(count * sizeof(T)) {}
    explicit DeviceArray(std::span<const T> values) : DeviceArray(values.size()) {
        bytes_.upload(values.data(), values.size_bytes());
    }

    DeviceSpan<T> span() const { return {reinterpret_cast<T*>(bytes_.data()), bytes_.size() / sizeof(T)}; }
    void upload(std::span<const T> values) { bytes_.upload(values.data(), values.size_bytes()); }
    std::vector<T> download() const {
        std::vector<T> values(bytes_.size() / sizeof(T));
        bytes_.download(values.data(), bytes_.size());
        return values;
    }

  private:
    DeviceBytes bytes_;
};

}  // namespace kvgrid::kernels
