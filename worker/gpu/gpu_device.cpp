#include "worker/gpu/gpu_device.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device.h"
#include "worker/gpu/gpu_model.h"

namespace kvgrid::worker {

using kernels::check_cuda;

Result<std::unique_ptr<GpuDevice>> GpuDevice::make(int index) {
    const int count = kernels::device_count();
    if (index >= count) {
        return {Errc::unavailable,
                fmt::format("GPU {} was asked for, and this process sees {}: name another one, or device \"cpu\"", index,
                            count)};
    }
    check_cuda(cudaSetDevice(index), "cudaSetDevice");
    const kernels::DeviceInfo info = kernels::current_device();
    return std::unique_ptr<GpuDevice>(new GpuDevice(index, info.name, info.multiprocessor_count));
}

GpuDevice::GpuDevice(int index, std::string name, int block_count)
    : index_(index), name_(std::move(name)), block_count_(block_count) {}

GpuDevice::Memory GpuDevice::memory() const {
    std::size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return {free, total};
}

Result<std::unique_ptr<DeviceModel>> GpuDevice::make_model(const DeviceModelShape& shape, std::uint32_t page_count) {
    check_cuda(cudaSetDevice(index_), "cudaSetDevice");  // of whichever thread applies operations
    if (shape.spec.dtype != Dtype::bf16 && shape.spec.dtype != Dtype::f16) {
        return {Errc::unsupported,
                fmt::format("dtype is {}: a GPU worker computes in bf16 and f16; register the model with one of these, "
                            "or use CPU workers",
                            name_of(shape.spec.dtype))};
    }
    const Memory memory = this->memory();
    const std::uint64_t bytes = shape.spec.page_bytes() * page_count;
    const Error no_room{Errc::no_room,
                        fmt::format("a pool of {} bytes: {} ({}) has {} of {} bytes free; ask for a smaller pool, or give "
                                    "the worker less memory",
                                    bytes, name_, index_, memory.free, memory.total)};
    if (bytes > memory.free) return no_room;
    try {
        return std::unique_ptr<DeviceModel>(
            std::make_unique<GpuModel>(shape, page_count, stream_, block_count_, counters_));
    } catch (const kernels::CudaError&) {
        cudaGetLastError();  // a refused allocation is no fault of later calls
        return no_room;
    }
}

}  // namespace kvgrid::worker
