#pragma once

#include <cstdint>

namespace kvgrid::kernels {

// One page of a stream's page list. A list is in token order; pages of other sequence parts are simply missing from it.
struct PageEntry {
    std::uint32_t page;         // index in the slab
    std::uint32_t token_count;  // tokens held, 1..64, from slot 0
    std::int64_t first_token;   // order number, in the sequence, of the token in slot 0; slots follow consecutively
};

}  // namespace kvgrid::kernels
