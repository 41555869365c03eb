#include "comm/monitor/request_metrics.h"

#include "comm/monitor/families.h"

namespace kvgrid::comm {

RequestMetrics::RequestMetrics(prometheus::Registry& registry)
    : requests_(prometheus::BuildCounter()
                    .Name("kvgrid_requests_total")
                    .Help("Requests that were answered, refused ones among them.")
                    .Register(registry)),
      durations_(prometheus::BuildHistogram()
                     .Name("kvgrid_request_duration_seconds")
                     .Help("From a request's arrival to its answer.")
                     .Register(registry)),
      refusals_(prometheus::BuildCounter()
                    .Name("kvgrid_refusals_total")
                    .Help("Requests that were refused, by the reason that the client was told.")
                    .Register(registry)) {}

void RequestMetrics::answered(const Answered& answered) {
    const auto number = static_cast<std::size_t>(answered.request);
    if (number >= types_.size()) return;
    OfType& type = types_[number];
    if (!type.count) {
        const prometheus::Labels labels{{"request", name_of(answered.request)}};
        type = {&requests_.Add(labels), &durations_.Add(labels, duration_buckets())};
    }
    type.count->Increment();
    type.duration->Observe(seconds(answered.took));
    if (answered.refused) {
        refusals_.Add({{"request", name_of(answered.request)}, {"reason", name_of(*answered.refused)}}).Increment();
    }
}

std::vector<prometheus::MetricFamily> connection_families(const Server& server) {
    const ConnectionCounters counters = server.connections();
    return {
        gauge_family("kvgrid_connections", "Connections that are open.").add(server.connection_count()),
        counter_family("kvgrid_connections_total", "Connections that were accepted.")
            .add(static_cast<double>(counters.accepted)),
        counter_family("kvgrid_connections_rejected_total",
                       "Connections that were turned away because too many were open (limit), or broken off because of "
                       "what came, or "
                       "how slowly it came, over them (bad_bytes).")
            .add(static_cast<double>(counters.turned_away), {{"reason", "limit"}})
            .add(static_cast<double>(counters.broken_off), {{"reason", "bad_bytes"}}),
    };
}

}  // namespace kvgrid::comm
