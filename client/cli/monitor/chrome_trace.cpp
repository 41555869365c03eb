#include "client/cli/monitor/chrome_trace.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace kvgrid::cli {

namespace {

using nlohmann::json;

constexpr const char* kThreads[] = {"I/O thread", "executor", "waiting"};  // by TraceLane

std::int64_t first_start(const GridTrace& trace, const std::vector<ClientSpan>& client) {
    std::int64_t first = std::numeric_limits<std::int64_t>::max();
    for (const RankTrace& rank : trace.ranks) {
        for (const TraceSpan& span : rank.spans) first = std::min(first, span.start_ns);
    }
    for (const ClientSpan& span : client) first = std::min(first, span.start_ns);
    return first;
}

class Writer {
  public:
    explicit Writer(std::int64_t origin_ns) : origin_ns_(origin_ns) {}

    void name(const char* what, int process, int thread, const std::string& name) {
        events_.push_back({{"name", what}, {"ph", "M"}, {"pid", process}, {"tid", thread}, {"args", {{"name", name}}}});
    }
    // One after, or within, another one of its thread.
    void complete(int process, int thread, const TraceSpan& span) {
        json event = begin_of(process, thread, span, "X");
        event["dur"] = static_cast<double>(span.end_ns - span.start_ns) / 1e3;
        events_.push_back(std::move(event));
    }
    void overlapping(int process, int thread, const TraceSpan& span) {
        json event = begin_of(process, thread, span, "b");
        event["cat"] = "waiting";
        event["id"] = ++last_id_;
        events_.push_back(event);
        event["ph"] = "e";
        event["ts"] = microseconds(span.end_ns);
        events_.push_back(std::move(event));
    }
    std::string text(json other) const {
        return json{{"traceEvents", events_}, {"displayTimeUnit", "ns"}, {"otherData", std::move(other)}}.dump(1) +
               "\n";
    }

  private:
    double microseconds(std::int64_t ns) const { return static_cast<double>(ns - origin_ns_) / 1e3; }
    json begin_of(int process, int thread, const TraceSpan& span, const char* phase) const {
        json event{
            {"name", span.name}, {"ph", phase}, {"pid", process}, {"tid", thread}, {"ts", microseconds(span.start_ns)}};
        if (span.operation) event["args"] = {{"operation", span.operation}};
        return event;
    }

    const std::int64_t origin_ns_;
    int last_id_ = 0;
    json events_ = json::array();
};

}  // namespace

std::string chrome_trace(const GridTrace& trace, const std::vector<ClientSpan>& client) {
    Writer writer(first_start(trace, client));
    std::uint64_t dropped = 0;
    for (const RankTrace& rank : trace.ranks) {
        dropped += rank.dropped;
        writer.name("process_name", rank.process_id, 0,
                    fmt::format("rank {}{} on {}", rank.rank, rank.rank == 0 ? " (lead)" : "", rank.host));
        for (const TraceLane lane : {TraceLane::io, TraceLane::executor, TraceLane::waiting})
            writer.name("thread_name", rank.process_id, static_cast<int>(lane), kThreads[static_cast<int>(lane)]);
        for (const TraceSpan& span : rank.spans) {
            const int thread = static_cast<int>(span.lane);
            span.lane == TraceLane::waiting ? writer.overlapping(rank.process_id, thread, span)
                                            : writer.complete(rank.process_id, thread, span);
        }
    }
    if (!client.empty()) writer.name("process_name", getpid(), 0, "client");
    for (const ClientSpan& span : client)
        writer.complete(getpid(), 0, {span.name, TraceLane::io, span.start_ns, span.end_ns, 0});
    return writer.text({{"format", "kvgrid.trace"}, {"format_version", 1}, {"spans_dropped", dropped}});
}

}  // namespace kvgrid::cli
