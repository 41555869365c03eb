#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace kvgrid::kernels {

// One call of a register kernel: some rows, some columns, all steps. Strides of a and c count 4-byte words.
struct Product {
    const float* a;  // [rows][steps]; words of the kernel's own kind (see elements_per_step)
    std::size_t a_stride;
    const std::byte* b;  // [steps][columns]
    std::size_t b_stride_bytes;
    std::size_t second_unit_bytes;  // where a step's second unit begins
    int steps;
    float* c;  // [rows][columns]
    std::size_t c_stride;
    // Memory that is wanted soon: each step asks for `prefetch_rate` cache lines of it, counted in 1 / kPrefetchOne.
    const std::byte* prefetch;
    std::uint32_t prefetch_rate;
};
inline constexpr std::uint32_t kPrefetchOne = 1 << 16;
inline constexpr std::size_t kLineBytes = 64;

// Spreads the prefetches of a call over its steps: in bursts they would be dropped.
struct PrefetchPace {
    const std::byte* next;
    std::uint32_t rate;
    std::uint32_t credit = 0;

    void step() {
        credit += rate;
        while (credit >= kPrefetchOne) {
            __builtin_prefetch(next, /*write=*/0, /*second-level cache*/ 2);
            next += kLineBytes;
            credit -= kPrefetchOne;
        }
    }
};

using ProductFunction = void (*)(const Product&);

inline constexpr int kProductRowsMax = 4;
using ProductByRows = std::array<ProductFunction, kProductRowsMax>;  // [rows - 1]

// What one dtype needs on one instruction set.
struct ProductKernels {
    Dtype dtype;
    int element_bytes;
    int elements_per_step;     // elements of K (and of q, in one word) that a step of `scores` consumes
    int score_columns;         // tokens that one call of `scores` covers
    ProductByRows scores;      // c = a * b
    ProductByRows outputs[2];  // c += a * b; [units - 1]
    void (*load_query)(const std::byte* from, int count, float* to);
    void (*order_output)(const float* from, int count, float* to);
};

}  // namespace kvgrid::kernels
