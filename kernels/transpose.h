#pragma once

#include <cstddef>
#include <cstdint>

namespace kvgrid::kernels {

// target[column][row] = source[row][column]; strides lead from one row of the source, or of the target, to the next.
struct Transpose {
    const std::byte* source;
    std::size_t source_stride_bytes;
    std::byte* target;
    std::size_t target_stride_bytes;
    int row_count, column_count;
};

// Element is std::uint16_t or std::uint32_t. Any alignment; nothing outside the two rectangles is touched.
template <class Element>
void transpose_elements(const Transpose& work);

}  // namespace kvgrid::kernels
