#pragma once

#include <cstdint>

namespace kvgrid::kernels {

// A page that is copied, and where to: indices in one slab.
struct PagePair {
    std::uint32_t source, target;
};

}  // namespace kvgrid::kernels
