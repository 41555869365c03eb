#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>

#include "worker/gpu/stream.h"

namespace kvgrid::worker {

// How long queued calls take on the GPU, which is known when they are done.
class CallTimes {
  public:
    static constexpr std::size_t kCallsMax = 256;

    bool is_full() const { return count_ == kCallsMax; }
    // Around what a call queues; not where the stream is captured.
    void begin(const GpuStream& stream);
    void end(const GpuStream& stream);
    // Of all calls since the last time, which are done.
    std::chrono::nanoseconds take();

  private:
    struct Call {
        GpuEvent begun, ended;
    };
    std::array<std::unique_ptr<Call>, kCallsMax> calls_;  // as many as were ever needed
    std::size_t count_ = 0;
};

}  // namespace kvgrid::worker
