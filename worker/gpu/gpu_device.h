#pragma once

#include <memory>
#include <string>

#include "worker/device.h"
#include "worker/gpu/counters.h"
#include "worker/gpu/stream.h"

namespace kvgrid::worker {

// One GPU, or a share of it.
class GpuDevice final : public Device {
  public:
    // Binds GPU `index` to the calling thread, which has to be the one that uses the device. `unavailable` where there is none such.
    static Result<std::unique_ptr<GpuDevice>> make(int index);

    DeviceStatus status() const override;
    Result<std::unique_ptr<DeviceModel>> make_model(const DeviceModelShape& shape, std::uint32_t page_count) override;

  private:
    struct Memory {
        std::size_t free, total;  // as the driver counts them
    };
    GpuDevice(int index, std::string name, int multiprocessor_count);
    static Memory memory();

    const int index_;
    const std::string name_;
    const int multiprocessor_count_;
    GpuStream stream_;
    const std::uint64_t memory_before_;
    GpuCounters counters_;
};

}  // namespace kvgrid::worker
