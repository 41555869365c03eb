#pragma once

#include "kernels/thread_pool.h"
#include "worker/device.h"

namespace kvgrid::worker {

// A share of this host's memory and cores.
class CpuDevice final : public Device {
  public:
    explicit CpuDevice(int thread_count) : threads_(thread_count) {}

    DeviceStatus status() const override { return {.name = "CPU"}; }
    Result<std::unique_ptr<DeviceModel>> make_model(const DeviceModelShape& shape, std::uint32_t page_count) override;

  private:
    kernels::ThreadPool threads_;
};

}  // namespace kvgrid::worker
