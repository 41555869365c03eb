#pragma once

#include <prometheus/collectable.h>

#include <memory>
#include <mutex>

#include "worker/shard.h"

namespace kvgrid::worker {

// Pages, tokens and sequences of a shard, as its allocator counts them. The executor publishes what it has after each operation that
// changes some of it; a scrape reads the last of these, whole, and never waits for the executor.
class OccupancyMetrics final : public prometheus::Collectable {
  public:
    // Models with metrics of their own; the others stand together as "other". Bounds the labels.
    static constexpr std::size_t kModelsMax = 64;

    void publish(const Shard& shard);  // on the executor's thread
    void withdraw();                   // there is no shard (any more)
    std::vector<prometheus::MetricFamily> Collect() const override;

  private:
    struct Snapshot;

    mutable std::mutex mutex_;
    std::shared_ptr<const Snapshot> last_;
};

}  // namespace kvgrid::worker
