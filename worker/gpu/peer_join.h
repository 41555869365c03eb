#pragma once

#include <memory>

#include "comm/collective/meeting.h"
#include "kernels/cuda/peer_exchange.h"
#include "worker/gpu/peer_mailboxes.h"
#include "worker/gpu/stream.h"

namespace kvgrid::worker {

// Between GPUs of one host whose kernels reach each other's memory: each rank pushes its rows into the lead's mailbox, where they are merged as they
// arrive. For outputs that fit into a mailbox; larger ones go another way.
class PeerJoin final : public Join {
  public:
    PeerJoin(const JoinPlace& place, std::unique_ptr<PeerMailboxes> mailboxes, bool share_process,
             const GpuStream& stream, GpuMemoryCounts& counts);
    ~PeerJoin() override;

    bool has_room(const ModelSpec& spec, const GridShape& grid, int tokens) const override;
    void prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation) override;
    std::span<std::byte> whole() override { return {}; }
    std::span<float> partial() override { return partial_; }
    std::span<float> lse() override { return lse_; }
    JoinWay way() const override { return JoinWay::pushed; }
    bool is_on_device() const override { return true; }
    bool joins_into(std::span<std::byte> output) override;
    TailJoin* tail() override { return &tail_; }
    Result<comm::Payload> finish(Deadline deadline) override;
    std::uint64_t bytes_received() const override { return bytes_received_; }

  private:
    enum Word { kAbort, kFailed };

    bool is_root() const { return rank_ == root_; }
    std::size_t whole_bytes() const { return spec_.row_bytes() * spec_.query_heads * tokens_; }
    volatile std::uint32_t& word(Word which) const;
    kernels::PeerExchange exchange() const;
    Status queue(Deadline deadline);
    Status wait(Deadline deadline);

    comm::Collective& control_;
    const int rank_, size_, root_;
    SpanRecorder* const spans_;
    const std::unique_ptr<PeerMailboxes> mailboxes_;
    const comm::Meeting meeting_;
    const GpuStream& stream_;
    GpuBuffer rows_;       // partial, then lse
    PinnedBuffer merged_;  // at the root
    PinnedBuffer words_;
    ModelSpec spec_;
    GridShape grid_;
    int tokens_ = 0;
    std::uint64_t operation_ = 0;
    std::span<float> partial_, lse_;
    kernels::PeerExchange exchange_{};
    TailJoin tail_;
    std::uint64_t bytes_received_ = 0;
    bool is_broken_ = false;
};

}  // namespace kvgrid::worker
