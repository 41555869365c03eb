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

std::vector<Latencies::Bucket> Latencies::histogram() const {
    std::vector<Bucket> buckets;
    double below_ms = 1e-3;
    const double slowest_ms = percentile_ms(1);
    for (std::int64_t counted = 0; counted < count(); below_ms *= 2) {
        const auto upto = std::ranges::count_if(seconds_, [&](double each) { return each * 1e3 < below_ms; });
        if (upto > 0) buckets.push_back({below_ms, upto - counted});
        counted = upto;
        if (below_ms > slowest_ms) break;
    }
    return buckets;
}

}  // namespace kvgrid::cli
