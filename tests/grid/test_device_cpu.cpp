#include "tests/grid/test_device.h"
#include "worker/cpu_device.h"

namespace kvgrid::tests {

std::unique_ptr<worker::Device> make_test_device(int thread_count, int, int) {
    return std::make_unique<worker::CpuDevice>(thread_count);
}

Dtype widest_dtype() {
    return Dtype::f32;
}

double weight_roundoff(Dtype) {
    return 0;
}

}  // namespace kvgrid::tests
