#pragma once

#include <prometheus/collectable.h>
#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>

#include <chrono>
#include <string>
#include <vector>

namespace kvgrid::comm {

// Metrics are of two kinds here: what happens is counted as it happens, by objects of a prometheus::Registry; what *is* (pages, queues,
// states) is read when a scrape asks, by a Collectable, so that all its numbers are of one moment.

using Labels = std::vector<prometheus::ClientMetric::Label>;

// A family to which samples are added one by one.
class Family {
  public:
    Family(prometheus::MetricType type, std::string name, std::string help);

    Family& add(double value, Labels labels = {});
    operator prometheus::MetricFamily() const { return family_; }

  private:
    prometheus::MetricFamily family_;
};

inline Family gauge_family(std::string name, std::string help) {
    return {prometheus::MetricType::Gauge, std::move(name), std::move(help)};
}
inline Family counter_family(std::string name, std::string help) {
    return {prometheus::MetricType::Counter, std::move(name), std::move(help)};
}

// For durations: from 10 us to 60 s, some three to a factor of ten.
const prometheus::Histogram::BucketBoundaries& duration_buckets();

inline double seconds(std::chrono::nanoseconds duration) {
    return std::chrono::duration<double>(duration).count();
}

// All families in Prometheus' text format, by name.
std::string metrics_text(const std::vector<const prometheus::Collectable*>& sources);
inline constexpr const char* kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace kvgrid::comm
