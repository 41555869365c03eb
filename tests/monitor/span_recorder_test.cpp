// A recording takes what comes while it is on, within its bounds, and ends after its steps or at its deadline. Off, nothing is kept.
#include "worker/span_recorder.h"

#include <gtest/gtest.h>

#include <thread>

namespace kvgrid::worker {
namespace {

using namespace std::chrono_literals;

TimePoint now() {
    return std::chrono::steady_clock::now();
}

void record(SpanRecorder& recorder) {
    recorder.add(SpanKind::append, now() - 1us, now(), 1);
}

TEST(SpanRecorder, KeepsNothingUntilItIsStarted) {
    SpanRecorder recorder;
    EXPECT_FALSE(recorder.on());
    record(recorder);
    { const ScopedSpan span(&recorder, SpanKind::send, 1); }
    { const ScopedSpan span(nullptr, SpanKind::send, 1); }
    EXPECT_TRUE(recorder.recording().spans.empty());
    EXPECT_TRUE(recorder.recording().finished);
}

TEST(SpanRecorder, AScopeBecomesASpan) {
    SpanRecorder recorder;
    recorder.start({.steps = 1, .until = now() + 1h});
    const TimePoint before = now();
    { const ScopedSpan span(&recorder, SpanKind::send, 7); }
    const auto recording = recorder.recording();
    ASSERT_EQ(recording.spans.size(), 1u);
    EXPECT_EQ(recording.spans[0].kind, SpanKind::send);
    EXPECT_EQ(recording.spans[0].operation, 7u);
    EXPECT_GE(recording.spans[0].start_ns, before.time_since_epoch() / 1ns);
    EXPECT_LE(recording.spans[0].start_ns, recording.spans[0].end_ns);
    EXPECT_FALSE(recording.finished);
}

TEST(SpanRecorder, EndsAfterItsSteps) {
    SpanRecorder recorder;
    recorder.start({.steps = 2, .until = now() + 1h});
    recorder.step_ended();
    record(recorder);
    recorder.step_ended();
    record(recorder);
    EXPECT_FALSE(recorder.on());
    EXPECT_TRUE(recorder.recording().finished);
    EXPECT_EQ(recorder.recording().steps, 2u);
    EXPECT_EQ(recorder.recording().spans.size(), 1u);
}

TEST(SpanRecorder, EndsAtItsDeadline) {
    SpanRecorder recorder;
    recorder.start({.steps = 1, .until = now() - 1ns});
    EXPECT_TRUE(recorder.on());
    record(recorder);
    EXPECT_FALSE(recorder.on());
    EXPECT_TRUE(recorder.recording().finished);
    EXPECT_TRUE(recorder.recording().spans.empty());
}

TEST(SpanRecorder, CountsWhatIsBeyondItsBoundAndBeginsAnew) {
    SpanRecorder recorder;
    recorder.start({.steps = 1, .until = now() + 1h, .spans_max = 2});
    for (int i = 0; i < 5; ++i) record(recorder);
    EXPECT_EQ(recorder.recording().spans.size(), 2u);
    EXPECT_EQ(recorder.recording().dropped, 3u);
    recorder.start({.steps = 1, .until = now() + 1h, .spans_max = 2});
    EXPECT_TRUE(recorder.recording().spans.empty());
    EXPECT_EQ(recorder.recording().dropped, 0u);
}

TEST(SpanRecorder, ThreadsMayRecordTogether) {
    SpanRecorder recorder;
    recorder.start({.steps = 1, .until = now() + 1h, .spans_max = 1000});
    std::thread other([&] {
        for (int i = 0; i < 100; ++i) record(recorder);
    });
    for (int i = 0; i < 100; ++i) record(recorder);
    other.join();
    EXPECT_EQ(recorder.recording().spans.size(), 200u);
}

}  // namespace
}  // namespace kvgrid::worker
