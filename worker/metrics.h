#pragma once

#include <prometheus/registry.h>

#include <optional>

#include "comm/monitor/process_metrics.h"
#include "comm/monitor/request_metrics.h"
#include "worker/device_metrics.h"
#include "worker/node_state.h"
#include "worker/observer.h"
#include "worker/occupancy_metrics.h"

namespace kvgrid::worker {

// All that a worker exports. docs/operations.md says what each metric means.
//
//   Threads  the lead's and the executor's calls each on their own thread; `text` from any.
class WorkerMetrics final : public Observer {
  public:
    WorkerMetrics();

    void waited_in_queue(std::chrono::nanoseconds wait) override;
    void step_ended(bool committed, std::chrono::nanoseconds duration) override;
    void operation_applied() override;
    void layer_done(const LayerWork& work) override;
    void tokens_committed(std::int64_t tokens) override;

    void waited_for_executor(std::chrono::nanoseconds wait);  // an operation that had arrived, on the executor's thread
    void answered(const comm::Answered& answered) { requests_.answered(answered); }
    OccupancyMetrics& occupancy() { return occupancy_; }
    DeviceMetrics& device() { return device_; }

    struct Now {
        const comm::Server& server;
        std::optional<NodeState> state;  // nothing: the I/O thread did not answer
        std::uint64_t abandoned_mpi_requests = 0;
    };
    std::string text(const Now& now) const;

  private:
    static constexpr int kPhaseCount = 3;

    prometheus::Registry registry_;
    comm::RequestMetrics requests_;
    OccupancyMetrics occupancy_;
    DeviceMetrics device_;
    comm::ProcessMetrics process_{"kvgrid-worker"};
    prometheus::Histogram& queue_wait_;
    prometheus::Histogram& executor_wait_;
    prometheus::Histogram& committed_;
    prometheus::Histogram& aborted_;
    prometheus::Histogram* kernels_[kPhaseCount];
    prometheus::Histogram* joins_[kPhaseCount];  // none of a write step
    prometheus::Counter& operations_;
    prometheus::Counter& join_bytes_;
    prometheus::Counter& tokens_committed_;
    prometheus::Counter& tokens_attended_;
};

}  // namespace kvgrid::worker
