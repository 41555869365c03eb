#include "tests/grid/test_device.h"
#include "worker/gpu/gpu_device.h"

namespace kvgrid::tests {

std::unique_ptr<worker::Device> make_test_device(int, int rank_count) {
    return worker::GpuDevice::make(0, rank_count).value();
}

Dtype widest_dtype() {
    return Dtype::f16;
}

double weight_roundoff(Dtype dtype) {
    return unit_roundoff(dtype);
}

}  // namespace kvgrid::tests
