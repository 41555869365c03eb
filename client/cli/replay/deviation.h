#pragma once

#include <cstdint>
#include <span>

namespace kvgrid::cli {

// How far answers are from what they should be, row by row; the worst of all rows.
struct Deviation {
    std::int64_t rows = 0;
    std::int64_t rows_outside = 0;  // of their tolerance, or not a number
    double absolute_max = 0;
    double relative_max = 0;                              // of the row's largest magnitude
    double tolerance_used = 0;                            // largest share of a row's tolerance: above 1 is outside
    double difference_squares = 0, expected_squares = 0;  // sums over all elements

    double relative_rms() const;  // root mean square of the differences, over that of what is right

    // One row: the answer, what it should be, and the largest difference that is right.
    void add(std::span<const float> answer, std::span<const double> expected, double tolerance);
};

double largest_magnitude(std::span<const double> row);
double largest_difference(std::span<const double> one, std::span<const double> other);

}  // namespace kvgrid::cli
