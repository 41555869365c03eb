// Without a GPU the tests are skipped: the program says so and ends with 77, which CTest knows.

#include <gtest/gtest.h>

#include <iostream>

#include "kernels/cuda/device.h"

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (kvgrid::kernels::device_count() == 0) {
        std::cout << "skipped: this machine has no CUDA device (or no driver for one)\n";
        return 77;
    }
    std::cout << "on " << kvgrid::kernels::current_device().name << "\n";
    return RUN_ALL_TESTS();
}
