#pragma once

#include <memory>

#include "comm/collective/nccl/nccl_world.h"
#include "worker/device.h"
#include "worker/gpu/memory.h"
#include "worker/gpu/stream.h"

namespace kvgrid::worker {

// Between the ranks' GPUs: blocks are gathered in the root's memory, and merged there into mapped memory of its host. On the stream on which the
// kernels are, so that nobody waits in between.
class GpuJoin final : public Join {
  public:
    GpuJoin(const JoinPlace& place, std::unique_ptr<comm::DeviceGather> gather, const GpuStream& stream,
            GpuMemoryCounts& counts);

    void prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation) override;
    std::span<std::byte> whole() override { return {}; }
    std::span<float> partial() override { return partial_; }
    std::span<float> lse() override { return lse_; }
    JoinWay way() const override { return JoinWay::nccl; }
    bool is_on_device() const override { return true; }
    Result<comm::Payload> finish(Deadline deadline) override;
    std::uint64_t bytes_received() const override { return bytes_received_; }

  private:
    bool is_root() const { return rank_ == root_; }
    std::size_t whole_bytes() const { return spec_.row_bytes() * spec_.query_heads * tokens_; }
    Status gather(Deadline deadline);
    void merge();

    const int rank_, size_, root_;
    SpanRecorder* const spans_;
    const std::unique_ptr<comm::DeviceGather> gather_;
    const GpuStream& stream_;
    GpuBuffer blocks_;     // at the root everybody's, else this rank's
    PinnedBuffer merged_;  // at the root
    ModelSpec spec_;
    GridShape grid_;
    int tokens_ = 0;
    std::uint64_t operation_ = 0;
    JoinBlock block_{};
    std::span<float> partial_, lse_;
    std::uint64_t bytes_received_ = 0;
};

}  // namespace kvgrid::worker
