#pragma once

#include <prometheus/registry.h>

#include "comm/monitor/process_metrics.h"
#include "comm/monitor/request_metrics.h"
#include "coordinator/coordinator.h"

namespace kvgrid::coordinator {

// All that a coordinator exports. docs/operations.md says what each metric means. On the I/O thread.
class CoordinatorMetrics {
  public:
    CoordinatorMetrics();

    void answered(const comm::Answered& answered) { requests_.answered(answered); }
    void catalogue_written(std::chrono::nanoseconds took);

    std::string text(Coordinator& coordinator, const comm::Server& server) const;

  private:
    prometheus::Registry registry_;
    comm::RequestMetrics requests_;
    comm::ProcessMetrics process_{"kvgrid-coordinator"};
    prometheus::Histogram& catalogue_writes_;
};

}  // namespace kvgrid::coordinator
