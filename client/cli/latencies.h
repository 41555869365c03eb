#pragma once

#include <chrono>
#include <vector>

namespace kvgrid::cli {

// How long calls took.
class Latencies {
  public:
    void add(std::chrono::duration<double> latency) { seconds_.push_back(latency.count()); }
    void add(const Latencies& others) {
        seconds_.insert(seconds_.end(), others.seconds_.begin(), others.seconds_.end());
    }
    // The smallest latency that at least `share` (0 ... 1) of the calls kept, in milliseconds; 0 without calls.
    double percentile_ms(double share) const;

  private:
    std::vector<double> seconds_;
};

}  // namespace kvgrid::cli
