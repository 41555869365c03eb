#include "worker/gpu/memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "kernels/cuda/cuda_error.h"

namespace kvgrid::worker {

namespace {

constexpr std::size_t kBytesMin = 64 << 10;
constexpr std::size_t kGrowthMax = 64 << 20;

std::size_t grown_size(std::size_t size, std::size_t bytes) {
    return std::max({bytes, size + std::min(size, kGrowthMax), kBytesMin});
}

}  // namespace

const char* name_of(GpuMemoryKind kind) {
    switch (kind) {
        case GpuMemoryKind::pages:
            return "pages";
        case GpuMemoryKind::page_lists:
            return "page_lists";
        case GpuMemoryKind::scratch:
            return "scratch";
    }
    return "unknown";
}

bool GpuBuffer::grow(std::size_t bytes) {
    if (bytes <= memory_.size()) return false;
    const bool moves = memory_.size() > 0;
    const std::size_t size = kind_ == GpuMemoryKind::pages ? bytes : grown_size(memory_.size(), bytes);
    free();  // before the new one: there may not be room for both
    memory_ = kernels::DeviceBytes(size);
    counts_.device[static_cast<int>(kind_)] += size;
    return moves;
}

void GpuBuffer::free() {
    counts_.device[static_cast<int>(kind_)] -= memory_.size();
    memory_ = {};
}

PinnedBuffer::~PinnedBuffer() {
    free();
}

void PinnedBuffer::free() {
    cudaFreeHost(data_);
    counts_.pinned -= size_;
    data_ = nullptr;
    size_ = 0;
}

bool PinnedBuffer::grow(std::size_t bytes) {
    if (bytes <= size_) return false;
    const bool moves = size_ > 0;
    const std::size_t size = grown_size(size_, bytes);
    free();
    void* memory = nullptr;
    kernels::check_cuda(cudaHostAlloc(&memory, size, cudaHostAllocMapped), "cudaHostAlloc");
    data_ = static_cast<std::byte*>(memory);
    size_ = size;
    counts_.pinned += size;
    return moves;
}

}  // namespace kvgrid::worker
