#pragma once

#include <prometheus/collectable.h>

#include <string>

namespace kvgrid::comm {

// The process_* metrics that Prometheus' own clients have, out of /proc/self, and kvgrid_build_info. Any thread.
class ProcessMetrics final : public prometheus::Collectable {
  public:
    explicit ProcessMetrics(std::string program) : program_(std::move(program)) {}
    std::vector<prometheus::MetricFamily> Collect() const override;

  private:
    const std::string program_;
};

}  // namespace kvgrid::comm
