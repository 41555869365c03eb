#pragma once

#include <chrono>
#include <cstdint>
#include <random>

namespace kvgrid::comm {

// How long to wait before trying again: doubles from `min` to `max` with each failure, of which a random half to whole is taken, so
// that many clients of one server that came back do not come at once.
class Backoff {
  public:
    Backoff(std::chrono::milliseconds min, std::chrono::milliseconds max, std::uint64_t seed);

    std::chrono::nanoseconds next();
    void reset() { next_ = min_; }

  private:
    std::chrono::nanoseconds min_, max_, next_;
    std::mt19937_64 random_;
};

}  // namespace kvgrid::comm
