#include <cmath>
#include <limits>
#include <stdexcept>

#include "kernels/merge_parts.h"
#include "kernels/merge_parts_check.h"

namespace kvgrid::kernels {

void merge_parts_reference(const MergeParts& work, std::span<double> merged) {
    check_parts(work);
    const std::size_t rows = static_cast<std::size_t>(work.token_count) * work.head_count;
    const std::size_t head_dim = work.head_dim;
    if (merged.size() < rows * head_dim) throw std::invalid_argument("merge_parts: merged is too short");

    for (std::size_t row = 0; row < rows; ++row) {
        double lse_max = -std::numeric_limits<double>::infinity();
        for (int part = 0; part < work.part_count; ++part) {
            lse_max = std::max<double>(lse_max, work.lse[part * work.part_stride + row]);
        }
        double weight_sum = 0;
        for (std::size_t dim = 0; dim < head_dim; ++dim) merged[row * head_dim + dim] = 0;
        for (int part = 0; part < work.part_count; ++part) {
            const double lse = work.lse[part * work.part_stride + row];
            if (lse == -std::numeric_limits<double>::infinity()) continue;
            const double weight = std::exp(lse - lse_max);
            weight_sum += weight;
            for (std::size_t dim = 0; dim < head_dim; ++dim) {
                merged[row * head_dim + dim] += weight * work.partial[part * work.part_stride + row * head_dim + dim];
            }
        }
        if (weight_sum == 0) continue;
        for (std::size_t dim = 0; dim < head_dim; ++dim) merged[row * head_dim + dim] /= weight_sum;
    }
}

}  // namespace kvgrid::kernels
