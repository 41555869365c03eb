#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/attention_product.h"

namespace kvgrid::kernels {

// The product of some rows with one block, K or V, in strips of its steps:
//
//   block   strip 0   [steps][columns]   <- multiplied
//           strip 1                      <- prefetched meanwhile; behind the last strip comes the first one of the next page
//           ...
//
// A strip is contiguous memory. Read strip by strip, a block is one sequential stream, which is what a processor's own prefetchers
// follow; and two blocks may take turns. Sums wait in C from strip to strip.
class Strips {
  public:
    struct Block {
        const ProductByRows& kernels;
        Product product;  // of all steps; `begins` says whether C starts from zero
        int row_count;
        int strip_count;
        const std::byte* next_block;  // the next page's block of the same kind; or null
    };

    explicit Strips(const Block& block)
        : kernels_(block.kernels),
          product_(block.product),
          row_count_(block.row_count),
          rows_per_call_(rows_per_call(block.row_count)),
          strip_count_(block.strip_count),
          strip_steps_((block.product.steps + block.strip_count - 1) / block.strip_count),
          steps_left_(block.product.steps),
          next_block_(block.next_block) {}

    void multiply_all() {
        while (steps_left_ > 0) multiply_next();
    }

    // Nothing where all steps are done.
    void multiply_next() {
        if (steps_left_ == 0) return;
        product_.steps = std::min(strip_steps_, steps_left_);
        steps_left_ -= product_.steps;
        product_.ends = steps_left_ == 0;
        const std::size_t strip_bytes = strip_steps_ * product_.b_stride_bytes;
        ++strip_;
        const std::byte* const behind = next_block_ == nullptr ? product_.b : next_block_;
        product_.prefetch = strip_ < strip_count_ ? product_.b + strip_bytes : behind;
        multiply_rows();
        product_.a += strip_steps_;
        product_.b += strip_bytes;
        product_.begins = false;
    }

  private:
    // As many as registers hold, evenly.
    static int rows_per_call(int row_count) {
        const int call_count = (row_count + kProductRowsMax - 1) / kProductRowsMax;
        return (row_count + call_count - 1) / call_count;
    }

    // What the first call prefetches is there for the others.
    void multiply_rows() {
        if (rows_per_call_ == row_count_) return kernels_[row_count_ - 1](product_);
        const float* const a = product_.a;
        float* const c = product_.c;
        for (int row = 0; row < row_count_; row += rows_per_call_) {
            product_.a = a + row * product_.a_stride;
            product_.c = c + row * product_.c_stride;
            kernels_[std::min(rows_per_call_, row_count_ - row) - 1](product_);
            product_.prefetch = product_.b;
        }
        product_.a = a;
        product_.c = c;
    }

    const ProductByRows& kernels_;
    Product product_;  // of the strip that comes next
    int row_count_, rows_per_call_;
    int strip_count_, strip_steps_;
    int strip_ = 0;
    int steps_left_;
    const std::byte* next_block_;
};

}  // namespace kvgrid::kernels
