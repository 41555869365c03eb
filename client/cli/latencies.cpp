#include "client/cli/latencies.h"

#include <algorithm>
#include <cmath>

namespace kvgrid::cli {

double Latencies::percentile_ms(double share) const {
    if (seconds_.empty()) return 0;
    std::vector<double> sorted = seconds_;
    const auto count = static_cast<double>(sorted.size());
    const auto at = static_cast<std::ptrdiff_t>(std::clamp(std::ceil(share * count) - 1, 0.0, count - 1));
    std::nth_element(sorted.begin(), sorted.begin() + at, sorted.end());
    return sorted[at] * 1e3;
}

}  // namespace kvgrid::cli
