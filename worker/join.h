#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "comm/wire/frame.h"
#include "core/clock.h"
#include "core/result.h"
#include "core/sharding.h"
#include "worker/join_way.h"

namespace kvgrid::kernels {
struct PeerExchange;
}

namespace kvgrid::worker {

// For a device whose attention kernel can join its rows in its tail: it does so for one operation, or leaves it to Join::finish. Ranks need not agree on
// that.
struct TailJoin {
    const kernels::PeerExchange* exchange = nullptr;  // of the operation that was prepared
    std::uint64_t serial = 0;                         // no two joins of a process have the same
    std::function<Status()>
        meet;                // to be called just before the launch: kernels of other ranks may wait for it from then on
    bool is_queued = false;  // out: the rows were joined, and are nowhere else
};

// Makes whole outputs out of the ranks' partial ones; a rank that is alone writes the whole itself. Every rank sends what it has to the lead, which
// merges over sequence parts by log-sum-exp and gathers over head parts: as JoinBlocks, or pushed (kernels/cuda/peer_exchange.h).
//
//   Use     prepare -> the kernels write into whole(), or partial() and lse() -> finish, on every rank, in the same order.
class Join {
  public:
    virtual ~Join() = default;

    // Whether outputs of this size can go this way; all ranks answer alike.
    virtual bool has_room(const ModelSpec&, const GridShape&, int /*tokens*/) const { return true; }

    // Lays out what this rank sends for an operation.
    virtual void prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation) = 0;
    // Not empty where this rank is alone: then its output is the whole, and there is nothing to join.
    virtual std::span<std::byte> whole() = 0;
    virtual std::span<float> partial() = 0;
    virtual std::span<float> lse() = 0;
    virtual JoinWay way() const = 0;
    virtual bool goes(JoinWay way) const { return way == this->way(); }  // for outputs of some size
    // partial and lse lie in the device's memory.
    virtual bool is_on_device() const = 0;

    // For the operation that was prepared, on the root: whether the whole output goes to `output`, in the device's memory, and finish() brings none.
    virtual bool joins_into(std::span<std::byte> /*output*/) { return false; }

    // Null where rows cannot be joined in a kernel's tail.
    virtual TailJoin* tail() { return nullptr; }

    // On the root: o [tokens, query_heads, head_dim] in the model's dtype; elsewhere an empty payload. Over the hosts `corrupt` if a rank joined
    // another operation; otherwise the exchange's errors.
    virtual Result<comm::Payload> finish(Deadline deadline) = 0;

    virtual std::uint64_t bytes_received() const = 0;  // by this rank
};

// What a rank sends: 64 bytes of header | partial [tokens, local query heads, head_dim] f32 | lse [tokens, local query heads] f32, padded to the
// largest head part, so that all blocks of a call have one size: 64 + tokens * query heads of the largest part * (head_dim + 1) * 4 bytes, whatever
// the context's length.
struct JoinBlock {
    static constexpr std::size_t kAlignment = 64;
    static constexpr std::size_t kPartialOffset = kAlignment;  // the header is before it

    std::size_t lse_offset, bytes;

    static JoinBlock of(const ModelSpec& spec, const GridShape& grid, int tokens) {
        const std::size_t rows_max =
            static_cast<std::size_t>(tokens) * kv_heads_per_part_max(spec, grid) * spec.group();
        const std::size_t lse_offset = kPartialOffset + rows_max * spec.head_dim * sizeof(float);
        const std::size_t end = lse_offset + rows_max * sizeof(float);
        return {lse_offset, (end + kAlignment - 1) / kAlignment * kAlignment};
    }
    static std::size_t rows_of(const ModelSpec& spec, const GridShape& grid, int rank, int tokens) {
        return static_cast<std::size_t>(tokens) * query_heads_of_part(spec, grid, grid.head_part(rank)).count;
    }
};

}  // namespace kvgrid::worker
