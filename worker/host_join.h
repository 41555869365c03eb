#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "comm/collective/collective.h"
#include "worker/join.h"
#include "worker/span_recorder.h"

namespace kvgrid::worker {

// Over the ranks' collective, through the hosts' memory.
class HostJoin final : public Join {
  public:
    HostJoin(comm::Collective& collective, int root, SpanRecorder* spans = nullptr);
    ~HostJoin() override;

    void prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation) override;
    std::span<std::byte> whole() override { return {whole_.get(), whole_bytes_}; }
    std::span<float> partial() override { return partial_; }
    std::span<float> lse() override { return lse_; }
    JoinWay way() const override { return collective_.size() == 1 ? JoinWay::alone : JoinWay::host; }
    bool is_on_device() const override { return false; }
    Result<comm::Payload> finish(Deadline deadline) override;
    std::uint64_t bytes_received() const override { return bytes_received_; }

  private:
    Status gather(Deadline deadline);
    comm::Payload merge() const;

    comm::Collective& collective_;
    const int root_;
    SpanRecorder* const spans_;
    struct AlignedBytes;
    std::unique_ptr<AlignedBytes> mine_;
    std::unique_ptr<AlignedBytes> all_;
    ModelSpec spec_;
    GridShape grid_;
    int tokens_ = 0;
    std::uint64_t operation_ = 0;
    JoinBlock block_{};
    std::shared_ptr<std::byte[]> whole_;
    std::size_t whole_bytes_ = 0;
    std::span<float> partial_;
    std::span<float> lse_;
    std::uint64_t bytes_received_ = 0;
};

}  // namespace kvgrid::worker
