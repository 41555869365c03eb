#pragma once

#include <memory>

#include "worker/device.h"

namespace kvgrid::tests {

// A device for one of `rank_count` ranks of a test's grid. Which kind is decided by what the test program is linked with; GPUs are taken in turn, and
// shared by what ranks there are beyond them.
std::unique_ptr<worker::Device> make_test_device(int thread_count, int rank, int rank_count);

// What the device computes in, where a test has no reason to choose: f32 on a CPU.
Dtype widest_dtype();

// By how much the device rounds the weights of a softmax before they meet V; 0: not at all.
double weight_roundoff(Dtype dtype);

}  // namespace kvgrid::tests
