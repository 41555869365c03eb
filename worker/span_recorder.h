#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "core/clock.h"

namespace kvgrid::worker {

// Where the time of a call goes. Indented: within the one above.
enum class SpanKind : std::uint8_t {
    request,    // a layer call at the lead, from its frame's arrival to its answer
    receive,    // I/O thread: reading the message, checking it, sending it on if nothing waits before it
    slice,      //   cutting the tensors to each head part's heads
    send,       //   handing the operation to all ranks
    queue,      // waiting at the lead for operations before it
    wake_up,    // from an operation's arrival until the executor began it
    operation,  // executor: all of it
    append,     //   k and v into pages
    attend,     //   over this rank's pages
    gather,     //   the lead: until all ranks' partial outputs are here; others: until theirs is on its way
    merge,      //   partial outputs into whole ones
    hand_back,  // from the executor's end until the I/O thread has the result
    reply,      // I/O thread: the answer, into the socket or behind what it is still sending
};
inline constexpr int kSpanKindCount = 13;
const char* name_of(SpanKind kind);

// Spans of one lane follow or contain one another, except in `waiting`, where calls of several clients overlap.
enum class Lane : std::uint8_t { io, executor, waiting };
Lane lane_of(SpanKind kind);

struct Span {               // travels between ranks as it is
    std::int64_t start_ns;  // steady_clock's
    std::int64_t end_ns;
    std::uint64_t operation;  // its number; 0: not known there
    SpanKind kind;
    std::uint8_t unused[7] = {};
};

struct RecordingOptions {
    std::uint32_t steps = 1;           // recording ends when so many steps have ended,
    Deadline until;                    // or at this time
    std::uint32_t spans_max = 20'000;  // what comes later is only counted
};

// Records what one process does, while somebody wants to know. Off, asking costs one relaxed load.
//
//   Threads  any.
class SpanRecorder {
  public:
    bool on() const { return on_.load(std::memory_order_relaxed); }

    void start(const RecordingOptions& options);  // begins anew
    void step_ended();
    void add(SpanKind kind, TimePoint start, TimePoint end, std::uint64_t operation);

    struct Recording {
        std::vector<Span> spans;  // by end
        std::uint64_t dropped = 0;
        std::uint32_t steps = 0;  // that have ended
        bool finished = true;     // nothing more will come
    };
    Recording recording();

  private:
    bool over(TimePoint now);  // with the mutex

    std::atomic<bool> on_ = false;
    std::mutex mutex_;
    RecordingOptions options_;
    Recording recording_;
};

// From its beginning to its end, if a recording is on at its beginning.
class ScopedSpan {
  public:
    ScopedSpan(SpanRecorder* recorder, SpanKind kind, std::uint64_t operation)  // null: not recorded
        : recorder_(recorder && recorder->on() ? recorder : nullptr), kind_(kind), operation_(operation) {
        if (recorder_) start_ = std::chrono::steady_clock::now();
    }
    ~ScopedSpan() {
        if (recorder_) recorder_->add(kind_, start_, std::chrono::steady_clock::now(), operation_);
    }
    ScopedSpan(const ScopedSpan&) = delete;
    ScopedSpan& operator=(const ScopedSpan&) = delete;

  private:
    SpanRecorder* const recorder_;
    const SpanKind kind_;
    const std::uint64_t operation_;
    TimePoint start_;
};

}  // namespace kvgrid::worker
