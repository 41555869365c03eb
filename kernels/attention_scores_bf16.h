#pragma once

#include "kernels/attention_product.h"

namespace kvgrid::kernels {

// Scores of bf16 queries and keys by AVX-512's own dot product of bf16 pairs: half of the multiplications. Products are
// exact and sums are f32 as everywhere; subnormal inputs and sums count as 0. Highway of Debian 12 does not know the
// instruction, and Clang (16) crashes on the file.
#if defined(__x86_64__) && !defined(__clang__)
#define KVGRID_SCORES_BF16 1
bool bf16_scores_supported();
ProductKernels with_bf16_scores(ProductKernels kernels);
#endif

}  // namespace kvgrid::kernels
