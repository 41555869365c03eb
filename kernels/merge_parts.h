#pragma once

#include <cstddef>
#include <span>

#include "core/dtype.h"

namespace kvgrid::kernels {

// Makes one output out of the partial outputs of `part_count` sequence parts of the same heads.
//
//   Shapes   partial  part p starts at partial + p * part_stride: [token_count, head_count, head_dim] f32, each normalised
//            lse      part p starts at lse + p * part_stride:     [token_count, head_count] f32, natural log, -inf for no tokens
//            merged   [token_count][merged_heads][head_dim] in merged_dtype; heads first_head ... first_head + head_count - 1
//                     of every token are written, the others are untouched
//   Rule     weight_p = exp(lse_p - max lse), normalised; a part with no tokens weighs exactly 0 (even if its partial is NaN),
//            and a row that no part has tokens for is exactly 0. One part alone is converted only.
//   Errors   std::invalid_argument where spans are too short for the shapes; nothing is written then.
//   Cost     reads every partial once: part_count * token_count * head_count * (head_dim + 1) * 4 bytes / memory bandwidth.
//   Source   flash-decoding's split reduction; docs/decisions/0004-join.md.
struct MergeParts {
    std::span<const float> partial;
    std::span<const float> lse;
    std::size_t part_stride = 0;  // floats
    int part_count;
    int token_count;
    int head_count;
    int head_dim;
    std::span<std::byte> merged;
    Dtype merged_dtype;
    int merged_heads;
    int first_head;
};
void merge_parts_cpu(const MergeParts& work);

// The same by the formula in fp64. merged: [token_count, head_count, head_dim], not rounded.
void merge_parts_reference(const MergeParts& work, std::span<double> merged);

}  // namespace kvgrid::kernels
