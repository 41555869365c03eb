#include "worker/trace_wire.h"

#include <fmt/format.h>

namespace kvgrid::worker {

namespace {

constexpr std::uint32_t kStepsMax = 10'000;
constexpr std::uint32_t kDurationMsMax = 600'000;
constexpr std::uint32_t kSpansMax = 100'000;  // of one rank, at 32 bytes in memory

}  // namespace

Status check_start_trace(const wire::StartTraceRequest& request) {
    const auto within = [](std::uint32_t value, std::uint32_t most) { return value >= 1 && value <= most; };
    if (within(request.steps(), kStepsMax) && within(request.duration_ms(), kDurationMsMax) &&
        within(request.spans_max(), kSpansMax)) {
        return {};
    }
    return {
        Errc::invalid_argument,
        fmt::format("a trace of {} steps, {} ms and {} spans: must be 1 to {}, 1 to {} and 1 to {}", request.steps(),
                    request.duration_ms(), request.spans_max(), kStepsMax, kDurationMsMax, kSpansMax)};
}

StartTrace start_trace_from(const wire::StartTraceRequest& request) {
    return {request.steps(), std::chrono::milliseconds(request.duration_ms()), request.spans_max()};
}

wire::TraceReply trace_reply(const std::vector<RankRecording>& by_rank) {
    wire::TraceReply reply;
    for (int kind = 0; kind < kSpanKindCount; ++kind) {
        wire::TraceKind& named = *reply.add_kinds();
        named.set_name(name_of(static_cast<SpanKind>(kind)));
        named.set_lane(static_cast<std::uint32_t>(lane_of(static_cast<SpanKind>(kind))));
    }
    for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
        wire::RankTrace& trace = *reply.add_ranks();
        trace.set_rank(static_cast<std::int32_t>(rank));
        trace.set_host(by_rank[rank].host);
        trace.set_process_id(by_rank[rank].process_id);
        trace.set_finished(by_rank[rank].recording.finished);
        trace.set_steps(by_rank[rank].recording.steps);
        trace.set_dropped(by_rank[rank].recording.dropped);
        for (const Span& span : by_rank[rank].recording.spans) {
            wire::TraceSpan& added = *trace.add_spans();
            added.set_kind(static_cast<std::uint32_t>(span.kind));
            added.set_start_ns(span.start_ns);
            added.set_duration_ns(span.end_ns - span.start_ns);
            added.set_operation(span.operation);
        }
    }
    return reply;
}

}  // namespace kvgrid::worker
