#pragma once

#include <chrono>

namespace kvgrid {

// Intervals and deadlines are on the monotonic clock of one process; they never travel (time-outs do, in milliseconds).
using TimePoint = std::chrono::steady_clock::time_point;
using Deadline = TimePoint;

// Handed to whatever decides by time, so that tests hand in their own.
class Clock {
  public:
    virtual ~Clock() = default;
    virtual TimePoint now() const = 0;
};

class SteadyClock final : public Clock {
  public:
    TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

// Moves only when a test says so.
class ManualClock final : public Clock {
  public:
    TimePoint now() const override { return now_; }
    void advance(std::chrono::nanoseconds by) { now_ += by; }

  private:
    TimePoint now_{std::chrono::hours(1)};
};

inline Deadline deadline_in(std::chrono::milliseconds from_now) {
    return std::chrono::steady_clock::now() + from_now;
}

}  // namespace kvgrid
