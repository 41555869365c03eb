#include "worker/span_recorder.h"

#include <iterator>

namespace kvgrid::worker {

namespace {

struct Row {
    const char* name;
    Lane lane;
};

constexpr Row kRows[] = {
    {"layer call", Lane::waiting}, {"receive", Lane::io},
    {"slice", Lane::io},           {"send", Lane::io},
    {"queue", Lane::waiting},      {"wake up", Lane::waiting},
    {"operation", Lane::executor}, {"append", Lane::executor},
    {"attend", Lane::executor},    {"gather", Lane::executor},
    {"merge", Lane::executor},     {"hand back", Lane::waiting},
    {"reply", Lane::io},
};
static_assert(std::size(kRows) == kSpanKindCount);

std::int64_t ns(TimePoint time) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

}  // namespace

const char* name_of(SpanKind kind) {
    return kRows[static_cast<int>(kind)].name;
}

Lane lane_of(SpanKind kind) {
    return kRows[static_cast<int>(kind)].lane;
}

void SpanRecorder::start(const RecordingOptions& options) {
    const std::lock_guard lock(mutex_);
    options_ = options;
    recording_ = {.spans = {}, .dropped = 0, .steps = 0, .finished = options.steps == 0};
    on_ = !recording_.finished;
}

bool SpanRecorder::over(TimePoint now) {
    if (!recording_.finished && now >= options_.until) {
        recording_.finished = true;
        on_ = false;
    }
    return recording_.finished;
}

void SpanRecorder::step_ended() {
    if (!on()) return;
    const std::lock_guard lock(mutex_);
    if (recording_.finished || ++recording_.steps < options_.steps) return;
    recording_.finished = true;
    on_ = false;
}

void SpanRecorder::add(SpanKind kind, TimePoint start, TimePoint end, std::uint64_t operation) {
    const std::lock_guard lock(mutex_);
    if (over(end)) return;
    if (recording_.spans.size() >= options_.spans_max) {
        ++recording_.dropped;
        return;
    }
    recording_.spans.push_back({ns(start), ns(end), operation, kind});
}

SpanRecorder::Recording SpanRecorder::recording() {
    const std::lock_guard lock(mutex_);
    over(std::chrono::steady_clock::now());
    return recording_;
}

}  // namespace kvgrid::worker
