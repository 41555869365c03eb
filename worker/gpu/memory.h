#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device_buffer.h"

namespace kvgrid::worker {

// To where the next piece of one allocation may begin.
inline constexpr std::size_t kGpuAlignment = 256;
constexpr std::size_t aligned_for_gpu(std::size_t bytes) {
    return (bytes + kGpuAlignment - 1) / kGpuAlignment * kGpuAlignment;
}

// What a worker's memory on its GPU is for.
enum class GpuMemoryKind { pages, page_lists, scratch };
inline constexpr int kGpuMemoryKinds = 3;
const char* name_of(GpuMemoryKind kind);

// Bytes that a worker has taken, by kind. Counted by whoever takes them.
//
//   Threads  one at a time.
struct GpuMemoryCounts {
    std::uint64_t device[kGpuMemoryKinds] = {};
    std::uint64_t pinned = 0;  // of the host

    std::uint64_t device_total() const { return device[0] + device[1] + device[2]; }
};

// Device memory that is counted, and grows: then what it held is lost and its address changes.
class GpuBuffer {
  public:
    GpuBuffer(GpuMemoryCounts& counts, GpuMemoryKind kind) : counts_(counts), kind_(kind) {}
    ~GpuBuffer() { free(); }
    GpuBuffer(const GpuBuffer&) = delete;
    GpuBuffer& operator=(const GpuBuffer&) = delete;

    // Whether there was memory that is now elsewhere. Work that uses it must be done.
    bool grow(std::size_t bytes);
    std::byte* data() const { return memory_.data(); }
    std::size_t size() const { return memory_.size(); }

    template <class T>
    kernels::DeviceSpan<T> span(std::size_t offset, std::size_t count) const {
        return {reinterpret_cast<T*>(memory_.data() + offset), count};
    }

  private:
    void free();

    GpuMemoryCounts& counts_;
    const GpuMemoryKind kind_;
    kernels::DeviceBytes memory_;
};

// Host memory that the GPU reads and writes directly, at the same address. Grows as above.
class PinnedBuffer {
  public:
    explicit PinnedBuffer(GpuMemoryCounts& counts) : counts_(counts) {}
    ~PinnedBuffer();
    PinnedBuffer(const PinnedBuffer&) = delete;
    PinnedBuffer& operator=(const PinnedBuffer&) = delete;

    bool grow(std::size_t bytes);
    std::byte* data() const { return data_; }
    std::size_t size() const { return size_; }

  private:
    void free();

    GpuMemoryCounts& counts_;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace kvgrid::worker
