#pragma once

#include <string>

namespace kvgrid::kernels {

// What the launchers need to know of a GPU.
struct DeviceInfo {
    std::string name;
    int multiprocessor_count;
    int block_shared_bytes_max;  // what one block may ask for
};

// How many GPUs this process sees; 0 where there is no driver either.
int device_count();

// Of the current device. Throws CudaError where there is none.
DeviceInfo current_device();

}  // namespace kvgrid::kernels
