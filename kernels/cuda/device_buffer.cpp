#include "kernels/cuda/device_buffer.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/cuda_error.h"

namespace kvgrid::kernels {

DeviceBytes::DeviceBytes(std::size_t size) : size_(size) {
    if (size == 0) return;
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, size), "cudaMalloc");
    data_ = static_cast<std::byte*>(memory);
}

DeviceBytes::~DeviceBytes() {
    cudaFree(data_);
}

void DeviceBytes::upload(const void* from, std::size_t bytes, std::size_t offset) {
    check_cuda(cudaMemcpy(data_ + offset, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

void DeviceBytes::download(void* to, std::size_t bytes, std::size_t offset) const {
    check_cuda(cudaMemcpy(to, data_ + offset, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy from the device");
}

}  // namespace kvgrid::kernels
