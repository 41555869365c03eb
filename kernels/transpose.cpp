#include "kernels/transpose.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

// Squares of 16-byte rows, transposed in registers by interleaving row i with row i + half, as often as the side has
// bits; what remains at the edges goes element by element. Vectors are the compilers' own (GCC, Clang): 128 bits exist
// everywhere.

namespace kvgrid::kernels {

namespace {

template <class Element>
struct Square;

template <>
struct Square<std::uint16_t> {
    static constexpr int kSide = 8;
    using Row [[gnu::vector_size(16)]] = std::uint16_t;

    static Row low(Row a, Row b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
    static Row high(Row a, Row b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
};

template <>
struct Square<std::uint32_t> {
    static constexpr int kSide = 4;
    using Row [[gnu::vector_size(16)]] = std::uint32_t;

    static Row low(Row a, Row b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
    static Row high(Row a, Row b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
};

template <class Element>
void transpose_square(const std::byte* source, std::size_t source_stride, std::byte* target,
                      std::size_t target_stride) {
    using Shape = Square<Element>;
    using Row = typename Shape::Row;
    constexpr int kSide = Shape::kSide;
    Row rows[kSide];
#pragma GCC unroll 8
    for (int row = 0; row < kSide; ++row) std::memcpy(&rows[row], source + row * source_stride, sizeof(Row));
#pragma GCC unroll 3
    for (int stage = 1; stage < kSide; stage *= 2) {
        Row mixed[kSide];
#pragma GCC unroll 4
        for (int row = 0; row < kSide / 2; ++row) {
            mixed[2 * row] = Shape::low(rows[row], rows[row + kSide / 2]);
            mixed[2 * row + 1] = Shape::high(rows[row], rows[row + kSide / 2]);
        }
        std::memcpy(rows, mixed, sizeof rows);
    }
#pragma GCC unroll 8
    for (int row = 0; row < kSide; ++row) std::memcpy(target + row * target_stride, &rows[row], sizeof(Row));
}

struct Rectangle {
    int row_begin, row_end, column_begin, column_end;
};

template <class Element>
void transpose_plainly(const Transpose& work, const Rectangle& part) {
    for (int row = part.row_begin; row < part.row_end; ++row) {
        for (int column = part.column_begin; column < part.column_end; ++column) {
            std::memcpy(work.target + column * work.target_stride_bytes + row * sizeof(Element),
                        work.source + row * work.source_stride_bytes + column * sizeof(Element), sizeof(Element));
        }
    }
}

}  // namespace

template <class Element>
void transpose_elements(const Transpose& work) {
    constexpr int kSide = Square<Element>::kSide;
    const int whole_rows = work.row_count / kSide * kSide;
    const int whole_columns = work.column_count / kSide * kSide;
    for (int column = 0; column < whole_columns; column += kSide) {
        for (int row = 0; row < whole_rows; row += kSide) {
            transpose_square<Element>(
                work.source + row * work.source_stride_bytes + column * sizeof(Element), work.source_stride_bytes,
                work.target + column * work.target_stride_bytes + row * sizeof(Element), work.target_stride_bytes);
        }
    }
    transpose_plainly<Element>(work, {0, whole_rows, whole_columns, work.column_count});
    transpose_plainly<Element>(work, {whole_rows, work.row_count, 0, work.column_count});
}

template void transpose_elements<std::uint16_t>(const Transpose&);
template void transpose_elements<std::uint32_t>(const Transpose&);

}  // namespace kvgrid::kernels
