#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/attention_plan.h"

namespace kvgrid::kernels {

// One fragment: the rows of a tile against some of its visible pages. What comes out is not divided by the sums yet:
//
//   sum[row]          sum over keys j of 2^(logit2_j - maximum[row])
//   outcome[row][dim] sum over keys j of 2^(logit2_j - maximum[row]) * v_j[dim]
//
// where logit2 is the logit times log2(e). A row that sees nothing has maximum -inf, sum 0 and outcome 0.
struct FragmentOutcome {
    float* outcome;  // [row_count][head_dim]
    float* maximum;  // [row_count]
    float* sum;      // [row_count]
};

// Memory that attend_fragment works in; aligned to 64 bytes, one per thread at a time.
std::size_t fragment_scratch_bytes(int row_count, int head_dim);

// Runs on the best instruction set of this machine (Highway's choice).
void attend_fragment(const Attention& work, const Tile& tile, const Fragment& fragment, std::byte* scratch,
                     const FragmentOutcome& outcome);

}  // namespace kvgrid::kernels
