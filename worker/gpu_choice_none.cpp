#include "worker/gpu_choice.h"

namespace kvgrid::worker {

int usable_gpu_count() {
    return 0;
}

Result<std::unique_ptr<Device>> make_gpu_device(int, int) {
    return {
        Errc::unsupported,
        "this worker was built without CUDA: build it where nvcc is (CMake says at configuration whether it found it), "
        "or set device \"cpu\""};
}

}  // namespace kvgrid::worker
