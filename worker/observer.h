#pragma once

#include <chrono>
#include <cstdint>

#include "worker/span_recorder.h"

namespace kvgrid::worker {

enum class Phase { decode, prefill, write };  // one token for each sequence; more for some; a write step

// One layer operation as one rank did it.
struct LayerWork {
    Phase phase;
    std::int64_t tokens_attended =
        0;                         // tokens of the contexts that were attended over, whole: the lengths after the step
    std::uint64_t join_bytes = 0;  // that this rank received
    std::chrono::nanoseconds kernels{0};
    std::chrono::nanoseconds join{0};  // waiting for the other ranks, and merging
};

// Told of what a lead (on its thread) and an executor (on its own) have done: the metrics. This one does nothing. `spans` is where both
// record what they do while somebody has asked for a trace.
//
//   Cost  a few tens of nanoseconds a call: they are on the path of layer calls.
class Observer {
  public:
    virtual ~Observer() = default;

    SpanRecorder spans;

    // ---- by the lead
    virtual void waited_in_queue(std::chrono::nanoseconds) {}  // a request, until it was sent to the ranks
    virtual void step_ended(bool /*committed*/, std::chrono::nanoseconds) {}  // so long after it was asked for

    // ---- by the executor
    virtual void operation_applied() {}
    virtual void layer_done(const LayerWork&) {}
    virtual void tokens_committed(std::int64_t) {}  // of all sequences of a step
};

}  // namespace kvgrid::worker
