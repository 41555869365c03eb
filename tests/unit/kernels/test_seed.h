#pragma once

#include <cstdint>

namespace kvgrid::kernels {

// The seed of a test, printed, so that a failure can be repeated: KVGRID_SEED=... in the environment sets it.
std::uint64_t test_seed();

}  // namespace kvgrid::kernels
