#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace kvgrid::cli {

// How long calls took.
class Latencies {
  public:
    void add(std::chrono::duration<double> latency) { seconds_.push_back(latency.count()); }
    void add(const Latencies& others) {
        seconds_.insert(seconds_.end(), others.seconds_.begin(), others.seconds_.end());
    }

    std::int64_t count() const { return static_cast<std::int64_t>(seconds_.size()); }
    // The smallest latency that at least `share` (0 ... 1) of the calls kept, in milliseconds; 0 without calls.
    double percentile_ms(double share) const;

    // Calls by latency: each bucket is twice as wide as the one before, from the first that has calls to the last.
    struct Bucket {
        double below_ms;
        std::int64_t count;
    };
    std::vector<Bucket> histogram() const;

  private:
    std::vector<double> seconds_;
};

}  // namespace kvgrid::cli
