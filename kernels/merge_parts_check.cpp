#include "kernels/merge_parts_check.h"

#include <stdexcept>

namespace kvgrid::kernels {

void check_parts(const MergeParts& work) {
    if (work.part_count < 1 || work.token_count < 0 || work.head_count < 1 || work.head_dim < 1) {
        throw std::invalid_argument("merge_parts: part_count, head_count and head_dim must be positive");
    }
    const std::size_t rows = static_cast<std::size_t>(work.token_count) * work.head_count;
    const std::size_t last_part = (work.part_count - 1) * work.part_stride;
    if (rows == 0) return;
    if (work.partial.size() < last_part + rows * work.head_dim || work.lse.size() < last_part + rows) {
        throw std::invalid_argument("merge_parts: partial or lse is too short for its shape");
    }
}

void check_merged(const MergeParts& work) {
    if (work.first_head < 0 || work.first_head > work.merged_heads - work.head_count) {
        throw std::invalid_argument("merge_parts: the heads leave merged");
    }
    const std::size_t elements = static_cast<std::size_t>(work.token_count) * work.merged_heads * work.head_dim;
    if (work.merged.size() < elements * byte_size(work.merged_dtype)) {
        throw std::invalid_argument("merge_parts: merged is too short for its shape");
    }
}

}  // namespace kvgrid::kernels
