#include "tests/unit/kernels/test_seed.h"

#include <cstdlib>
#include <iostream>
#include <random>

namespace kvgrid::kernels {

std::uint64_t test_seed() {
    const char* given = std::getenv("KVGRID_SEED");
    const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
    std::cout << "KVGRID_SEED=" << seed << "\n";
    return seed;
}

}  // namespace kvgrid::kernels
