#include "kernels/cuda/cuda_error.h"

#include <cuda_runtime_api.h>

namespace kvgrid::kernels {

void check_cuda(int code, const char* call) {
    const auto error = static_cast<cudaError_t>(code);
    if (error == cudaSuccess) return;
    cudaGetLastError();  // reported here, so not again by the next check
    throw CudaError(std::string(call) + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

void check_launch(const char* kernel) {
    check_cuda(cudaGetLastError(), kernel);
}

}  // namespace kvgrid::kernels
