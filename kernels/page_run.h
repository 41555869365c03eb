#pragma once

#include <cstdint>

namespace kvgrid::kernels {

// Consecutive tokens that go to (or come from) consecutive slots of one page.
struct PageRun {
    std::uint32_t page;  // index in the slab
    int slot;            // first slot, 0..63
    int token_count;     // slot + token_count <= 64
    int row;             // row of the first token in k and v
    int head;            // KV head: column of k and v
};

}  // namespace kvgrid::kernels
