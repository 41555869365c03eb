#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/collective/collective.h"
#include "worker/executor.h"
#include "worker/executor_queue.h"
#include "worker/lead.h"
#include "worker/shard.h"

namespace kvgrid::tests {

// A whole grid in this process, without sockets: the ranks are threads, each with its shard and executor, under a real Lead.
// Pages are on the device that test_device.h makes, or `make_device`. The lead's decisions run in the thread that calls the methods below, which all wait for what they ask.
class ThreadGrid {
  public:
    using MakeDevice = std::function<std::unique_ptr<worker::Device>(int thread_count, int rank, int rank_count)>;

    ThreadGrid(int ranks, std::uint64_t memory_bytes, int threads_per_rank = 1, const MakeDevice& make_device = {});
    ~ThreadGrid();

    worker::OperationResult submit(worker::OperationBody body, std::vector<std::byte> tensors = {});
    std::pair<StepId, worker::OperationResult> begin(worker::BeginStep begin, worker::Lead::Owner owner = 1);
    worker::OperationResult layer(StepId step, worker::Lead::LayerOfStep layer, std::vector<std::byte> tensors);
    worker::OperationResult commit(StepId step);
    worker::OperationResult abort(StepId step);

    worker::Lead& lead() { return *lead_; }  // for calls that should wait together; then `wait_for`
    void wait_for(const std::function<bool()>& condition);

    // Waits until every rank has applied everything, then looks at each pool and stream table: page counts are conserved and agree with
    // a recount. Returns the first violation, or "".
    std::string violation();

    int rank_count() const { return static_cast<int>(ranks_.size()); }

  private:
    struct Rank {
        std::unique_ptr<worker::Device> device;
        std::unique_ptr<comm::Collective> collective;
        std::unique_ptr<worker::Shard> shard;
        std::unique_ptr<worker::Executor> executor;
        worker::ExecutorQueue queue;
        std::thread thread;
    };
    struct Links;

    void post(std::function<void()> work);  // to the thread that waits

    std::vector<std::unique_ptr<Rank>> ranks_;
    std::unique_ptr<Links> links_;
    std::unique_ptr<worker::Lead> lead_;
    std::mutex mutex_;
    std::condition_variable posted_;
    std::deque<std::function<void()>> work_;
};

}  // namespace kvgrid::tests
