#include "worker/gpu/gpu_device.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device.h"
#include "worker/gpu/client_memory.h"
#include "worker/gpu/gpu_model.h"

namespace kvgrid::worker {

using kernels::check_cuda;

namespace {

constexpr std::chrono::milliseconds kMemoryAge{100};

}  // namespace

Result<std::unique_ptr<GpuDevice>> GpuDevice::make(int index, int sharers) {
    return make(index, sharers, nullptr);
}

Result<std::unique_ptr<GpuDevice>> GpuDevice::make_on_stream(int index, kernels::Stream stream) {
    if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
        return {Errc::invalid_argument, "a default stream was given: give one that the program has created"};
    }
    return make(index, 1, stream);
}

Result<std::unique_ptr<GpuDevice>> GpuDevice::make(int index, int sharers, kernels::Stream stream) {
    const int count = kernels::device_count();
    if (index >= count) {
        return {Errc::unavailable,
                fmt::format("GPU {} was asked for, and this process sees {}: name another one, or device \"cpu\"",
                            index, count)};
    }
    prepare_joins();
    check_cuda(cudaSetDevice(index), "cudaSetDevice");
    const kernels::DeviceInfo info = kernels::current_device();
    return std::unique_ptr<GpuDevice>(
        new GpuDevice(index, info.name, std::max(1, info.multiprocessor_count / sharers), sharers, stream));
}

GpuDevice::GpuDevice(int index, std::string name, int multiprocessor_count, int sharers, kernels::Stream stream)
    : index_(index),
      name_(fmt::format("{} (GPU {})", name, index)),
      multiprocessor_count_(multiprocessor_count),
      sharers_(sharers),
      stream_(stream),
      memory_before_(memory().total - memory().free) {}

GpuDevice::Memory GpuDevice::memory() const {
    check_cuda(cudaSetDevice(index_), "cudaSetDevice");  // of whichever thread asks
    Memory memory{};
    check_cuda(cudaMemGetInfo(&memory.free, &memory.total), "cudaMemGetInfo");
    return memory;
}

// As of now where this worker has taken or freed any since, else a tenth of a second old at most.
GpuDevice::Memory GpuDevice::recent_memory() const {
    const auto now = std::chrono::steady_clock::now();
    const std::uint64_t taken = counters_.memory.device_total();
    if (recent_.total > 0 && taken == recent_taken_ && now - recent_time_ < kMemoryAge) return recent_;
    recent_ = memory();
    recent_taken_ = taken;
    recent_time_ = now;
    return recent_;
}

DeviceStatus GpuDevice::status() const {
    const Memory now = recent_memory();
    DeviceStatus status{.name = name_,
                        .is_gpu = true,
                        .memory_total = now.total,
                        .memory_free = now.free,
                        .memory_before = memory_before_,
                        .pinned_bytes = counters_.memory.pinned,
                        .layer_calls = counters_.layer_calls,
                        .graph_captures = counters_.graph_captures,
                        .graph_launches = counters_.graph_launches,
                        .kernel_ns = counters_.kernel_ns,
                        .queue_ns = counters_.queue_ns,
                        .kv_bytes = counters_.kv_bytes};
    if (counters_.decode_calls > 0) status.schedule_imbalance = counters_.imbalance_sum / counters_.decode_calls;
    for (int kind = 0; kind < kGpuMemoryKinds; ++kind) {
        status.memory_taken.push_back({name_of(static_cast<GpuMemoryKind>(kind)), counters_.memory.device[kind]});
    }
    for (int path = 0; path < kernels::kDecodePathCount; ++path) {
        status.attention_calls.push_back(
            {name_of(static_cast<kernels::DecodePath>(path)), counters_.attention_calls[path]});
    }
    count_communicators(status);
    return status;
}

Result<std::shared_ptr<DeviceMemory>> GpuDevice::open_memory(std::span<const std::byte> handle,
                                                             std::uint64_t bytes) const {
    return open_client_memory(index_, handle, bytes);
}

Result<std::unique_ptr<DeviceModel>> GpuDevice::make_model(const DeviceModelShape& shape, std::uint32_t page_count) {
    check_cuda(cudaSetDevice(index_), "cudaSetDevice");  // of whichever thread applies operations
    const Memory now = memory();
    const std::uint64_t bytes = shape.spec.page_bytes() * page_count;
    const Error no_room{Errc::no_room,
                        fmt::format("a pool of {} bytes: {} has {} of {} bytes free; ask for a smaller pool, or give "
                                    "the worker less memory",
                                    bytes, name_, now.free, now.total)};
    if (bytes > now.free) return no_room;
    try {
        return std::unique_ptr<DeviceModel>(
            std::make_unique<GpuModel>(shape, page_count, stream_, multiprocessor_count_, counters_));
    } catch (const kernels::CudaError&) {
        cudaGetLastError();  // a refused allocation is no fault of later calls
        return no_room;
    }
}

}  // namespace kvgrid::worker
