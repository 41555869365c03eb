#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "comm/collective/collective.h"
#include "comm/wire/frame.h"
#include "core/sharding.h"
#include "worker/span_recorder.h"

namespace kvgrid::worker {

// Makes whole outputs out of the ranks' partial ones; a rank that is alone writes the whole itself. Every rank sends one block to the lead, which merges over sequence parts by
// log-sum-exp and gathers over head parts.
//
//   Block   64 bytes of header | partial [tokens, local query heads, head_dim] f32 | lse [tokens, local query heads] f32, padded to
//           the largest head part, so that all blocks of a call have one size:
//           64 + tokens * query heads of the largest part * (head_dim + 1) * 4 bytes, whatever the context's length.
//   Use     prepare -> the kernels write into whole(), or partial() and lse() -> finish, on every rank, in the same order.
class Join {
  public:
    Join(comm::Collective& collective, int root, SpanRecorder* spans = nullptr);
    ~Join();

    // Lays out this rank's block for an operation.
    void prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation);
    // Not empty where this rank is alone: then its output is the whole, and there is nothing to join.
    std::span<std::byte> whole() { return {whole_.get(), whole_bytes_}; }
    std::span<float> partial() { return partial_; }
    std::span<float> lse() { return lse_; }

    // Exchanges the blocks. On the root: o [tokens, query_heads, head_dim] in the model's dtype; elsewhere an empty payload.
    // `corrupt` if a rank joined another operation; otherwise the collective's errors.
    Result<comm::Payload> finish(Deadline deadline);

    std::uint64_t bytes_received() const { return bytes_received_; }  // by this rank

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
    std::size_t block_bytes_ = 0;
    std::size_t lse_offset_ = 0;
    std::shared_ptr<std::byte[]> whole_;
    std::size_t whole_bytes_ = 0;
    std::span<float> partial_;
    std::span<float> lse_;
    std::uint64_t bytes_received_ = 0;
};

}  // namespace kvgrid::worker
