#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "worker/device.h"
#include "worker/gpu/counters.h"
#include "worker/gpu/stream.h"

namespace kvgrid::worker {

// One GPU, or a share of it.
class GpuDevice final : public Device {
  public:
    // What a worker leaves of a GPU's memory: for scratch, the driver and other programs.
    static constexpr std::uint64_t kReserveBytes = std::uint64_t{2} << 30;

    // Binds GPU `index` to the calling thread, which has to be the one that uses the device. `unavailable` where there is none such.
    static Result<std::unique_ptr<GpuDevice>> make(int index);

    Result<std::unique_ptr<DeviceModel>> make_model(const DeviceModelShape& shape, std::uint32_t page_count) override;

    struct Memory {
        std::uint64_t free, total;  // of the GPU, as the driver counts them
    };
    Memory memory() const;
    const std::string& name() const { return name_; }
    int index() const { return index_; }
    const GpuCounters& counters() const { return counters_; }

  private:
    GpuDevice(int index, std::string name, int block_count);

    const int index_;
    const std::string name_;
    const int block_count_;  // one for each SM
    GpuStream stream_;
    GpuCounters counters_;
};

}  // namespace kvgrid::worker
