#pragma once

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>

#include "comm/rpc/server.h"

namespace kvgrid::comm {

// Requests of a Server by type: how many, how long, and how many were refused for which reason. A request's metrics appear with its
// first answer.
//
//   Threads  `answered` on one thread at a time (the server's); the registry may be collected from any.
//   Cost     of an answer: some tens of nanoseconds, once its type is known.
class RequestMetrics {
  public:
    explicit RequestMetrics(prometheus::Registry& registry);

    void answered(const Answered& answered);

  private:
    static constexpr std::size_t kTypeCount = 256;  // message types have lower numbers
    struct OfType {
        prometheus::Counter* count = nullptr;
        prometheus::Histogram* duration = nullptr;
    };

    prometheus::Family<prometheus::Counter>& requests_;
    prometheus::Family<prometheus::Histogram>& durations_;
    prometheus::Family<prometheus::Counter>& refusals_;
    std::array<OfType, kTypeCount> types_;
};

// A server's connections, when asked. Any thread.
std::vector<prometheus::MetricFamily> connection_families(const Server& server);

}  // namespace kvgrid::comm
