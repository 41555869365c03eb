#include "kernels/cuda/device.h"
#include "tests/grid/test_device.h"
#include "worker/gpu/gpu_device.h"

namespace kvgrid::tests {

std::unique_ptr<worker::Device> make_test_device(int, int rank, int rank_count) {
    const int gpus = kernels::device_count();
    return worker::GpuDevice::make(rank % gpus, (rank_count + gpus - 1) / gpus).value();
}

Dtype widest_dtype() {
    return Dtype::f16;
}

double weight_roundoff(Dtype dtype) {
    return unit_roundoff(dtype);
}

}  // namespace kvgrid::tests
