#pragma once

#include <stdexcept>
#include <string>

namespace kvgrid::kernels {

// The CUDA runtime refused a call, or an earlier kernel failed. `what` names the call, the runtime's error and its text.
class CudaError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Throws CudaError unless `code` (a cudaError_t) is success.
void check_cuda(int code, const char* call);

// Throws CudaError if the launch before it was refused.
void check_launch(const char* kernel);

}  // namespace kvgrid::kernels
