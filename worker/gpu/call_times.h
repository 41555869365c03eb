#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>

#include "worker/gpu/stream.h"

namespace kvgrid::worker {

// How long queued calls take on the GPU, which is known when they are done. Two events are a good part of a short call: of those one in
// kShortMeasured is measured, and stands for those before it.
class CallTimes {
  public:
    static constexpr std::size_t kCallsMax = 256;
    static constexpr int kShortMeasured = 13;  // no divisor of numbers of layers

    bool is_full() const { return count_ == kCallsMax; }
    // Around what a call queues; not where the stream is captured.
    void begin(const GpuStream& stream, bool is_short);
    void end(const GpuStream& stream);
    // Of all calls since the last time, which are done.
    std::chrono::nanoseconds take();

  private:
    struct Call {
        GpuEvent begun, ended;
        int stands_for = 1;
    };
    std::array<std::unique_ptr<Call>, kCallsMax> calls_;  // as many as were ever needed
    std::size_t count_ = 0;
    int not_measured_ = 0;  // short calls, in a row
    bool is_measuring_ = false;
    bool is_first_ = true;
};

}  // namespace kvgrid::worker
