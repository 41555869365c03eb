#include "client/cli/replay/deviation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvgrid::cli {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double ratio(double part, double whole) {
    if (part == 0) return 0;
    return whole > 0 ? part / whole : kInfinity;
}

}  // namespace

void Deviation::add(std::span<const float> answer, std::span<const double> expected, double tolerance) {
    double absolute = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double difference = std::abs(answer[i] - expected[i]);
        absolute = std::max(absolute, std::isnan(difference) ? kInfinity : difference);
        difference_squares += difference * difference;
        expected_squares += expected[i] * expected[i];
    }
    ++rows;
    if (!(absolute <= tolerance)) ++rows_outside;
    absolute_max = std::max(absolute_max, absolute);
    relative_max = std::max(relative_max, ratio(absolute, largest_magnitude(expected)));
    tolerance_used = std::max(tolerance_used, ratio(absolute, tolerance));
}

double Deviation::relative_rms() const {
    return std::sqrt(ratio(difference_squares, expected_squares));
}

double largest_magnitude(std::span<const double> row) {
    double largest = 0;
    for (const double element : row) largest = std::max(largest, std::abs(element));
    return largest;
}

double largest_difference(std::span<const double> one, std::span<const double> other) {
    double largest = 0;
    for (std::size_t i = 0; i < one.size(); ++i) largest = std::max(largest, std::abs(one[i] - other[i]));
    return largest;
}

}  // namespace kvgrid::cli
