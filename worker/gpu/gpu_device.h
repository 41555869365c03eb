#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "worker/device.h"
#include "worker/gpu/counters.h"
#include "worker/gpu/stream.h"

namespace kvgrid::comm {
class NcclWorld;
}

namespace kvgrid::worker {

// One GPU, or a share of it.
class GpuDevice final : public Device {
  public:
    // `sharers`: how many such devices use the GPU's SMs at the same time; each plans for its share of them. `unavailable` where there is no
    // GPU `index`.
    static Result<std::unique_ptr<GpuDevice>> make(int index, int sharers = 1);
    // That queues on a stream of the program's own, which lies on GPU `index` and outlives the device and whatever it made; then layer calls follow
    // what the program has queued there, and can be captured. Not the default streams: `invalid_argument`. GPU `index` is the calling thread's
    // current one from here on, and must be so in all calls of the device and its shards. Fatal where a wait finds that the stream has not
    // come to its end in a minute, whatever is on it.
    static Result<std::unique_ptr<GpuDevice>> make_on_stream(int index, kernels::Stream stream);

    DeviceStatus status() const override;
    Result<std::unique_ptr<DeviceModel>> make_model(const DeviceModelShape& shape, std::uint32_t page_count) override;
    Result<std::shared_ptr<DeviceMemory>> open_memory(std::span<const std::byte> handle,
                                                      std::uint64_t bytes) const override;
    bool set_idle_work(std::function<void()> work) override {
        stream_.set_idle_work(std::move(work));
        return true;
    }

  protected:
    JoinIdentity join_identity() const override;
    // Over NCCL, where it is built in.
    Result<std::unique_ptr<Join>> make_gathering_join(const JoinPlace& place, bool share_process) override;
    Result<std::unique_ptr<Join>> make_pushing_join(const JoinPlace& place, bool share_process) override;

  private:
    struct Memory {
        std::size_t free, total;  // as the driver counts them
    };
    static void prepare_joins();          // before NCCL's first call
    static std::uint32_t nccl_version();  // 0: it is not built in
    static Result<std::unique_ptr<GpuDevice>> make(int index, int sharers, kernels::Stream stream);
    GpuDevice(int index, std::string name, int multiprocessor_count, int sharers, kernels::Stream stream);
    Memory memory() const;
    Memory recent_memory() const;
    void count_communicators(DeviceStatus& status) const;

    const int index_;
    const std::string name_;
    const int multiprocessor_count_;
    const int sharers_;
    GpuStream stream_;
    const std::uint64_t memory_before_;

    // What the driver said last: asking it takes long beside a step, and other programs change it slowly.
    mutable Memory recent_{};
    mutable std::uint64_t recent_taken_ = 0;
    mutable std::chrono::steady_clock::time_point recent_time_{};
    GpuCounters counters_;
    std::shared_ptr<comm::NcclWorld> nccl_;  // from the first join on, so that it counts what all generations form
};

}  // namespace kvgrid::worker
