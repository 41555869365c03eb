#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/attention_product.h"

namespace kvgrid::kernels {

// The product of some rows with one block, K or V, while the next page's block of the same kind comes to the second-level cache.
struct BlockProduct {
    const ProductByRows& kernels;
    Product product;
    int row_count;
    const std::byte* next_block;  // or null

    void multiply() {
        if (product.steps == 0) return;
        product.prefetch = next_block == nullptr ? product.b : next_block;
        const int rows_per_call = rows_per_call_of(row_count);
        if (rows_per_call == row_count) return kernels[row_count - 1](product);
        Product call = product;
        for (int row = 0; row < row_count; row += rows_per_call) {
            call.a = product.a + row * product.a_stride;
            call.c = product.c + row * product.c_stride;
            kernels[std::min(rows_per_call, row_count - row) - 1](call);
            call.prefetch = product.b;  // what the first call asked for is on its way
        }
    }

    // As many as registers hold, evenly.
    static int rows_per_call_of(int row_count) {
        const int call_count = (row_count + kProductRowsMax - 1) / kProductRowsMax;
        return (row_count + call_count - 1) / call_count;
    }
};

}  // namespace kvgrid::kernels
