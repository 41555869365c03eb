#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace kvgrid::kernels {

// One call of a register kernel: some rows against some steps, for all columns. Scores are written to c, in the order of their tokens; outputs
// are added to it. Strides of a and c count 4-byte words.
struct Product {
    const float* a;  // [rows][steps]; words of the kernel's own kind (see elements_per_step)
    std::size_t a_stride;
    const std::byte* b;  // [steps][columns]
    std::size_t b_stride_bytes;
    int steps;
    int columns;
    float* c;  // [rows][columns]
    std::size_t c_stride;
    // As many bytes as b has, which are wanted next and asked for line by line along the way, into the second-level cache: the first
    // level's few places for misses would be held until memory answers. b itself where there are none.
    const std::byte* prefetch;
};
inline constexpr int kLineBytes = 64;

using ProductFunction = void (*)(const Product&);

inline constexpr int kProductRowsMax = 6;
using ProductByRows = std::array<ProductFunction, kProductRowsMax>;  // [rows - 1]

// What one dtype needs on one instruction set.
struct ProductKernels {
    Dtype dtype;
    int element_bytes;
    int elements_per_step;  // elements of K (and of q, in one word) that a step of `scores` consumes
    ProductByRows scores;
    ProductByRows outputs;
    void (*load_query)(const std::byte* from, int count, float* to);
    void (*order_output)(const float* from, int count, float* to);
};

}  // namespace kvgrid::kernels
