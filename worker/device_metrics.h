#pragma once

#include <prometheus/collectable.h>

#include <memory>
#include <mutex>

#include "worker/device_status.h"

namespace kvgrid::worker {

// What a worker's device is and has done, as the executor has published it last.
class DeviceMetrics final : public prometheus::Collectable {
  public:
    void publish(DeviceStatus status);  // on the executor's thread
    std::vector<prometheus::MetricFamily> Collect() const override;

  private:
    mutable std::mutex mutex_;
    std::shared_ptr<const DeviceStatus> last_;
};

}  // namespace kvgrid::worker
