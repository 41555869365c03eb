#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "kernels/cuda/device_span.h"

namespace kvgrid::kernels {

// Rows of several ranks' attention, pushed into the root's memory and merged there as they come: one kernel on each rank, no barrier. It is
// exchange_rows', or a decode kernel that joins in its tail (Decode::join); ranks need not agree which.
//
//   Mailbox   of each rank, in its GPU's memory; the others write into it directly (peer access, or CUDA IPC between processes):
//             {epoch, blocks that are done, acknowledged} u32, padded to 256 bytes; then, at the root, slots: [2][rank] of kSlotBytes each
//   Slot      [row][dim / 4] 4 x f32, then [row][dim / 4] f32, the row's log-sum-exp beside each four dims of it: what one rank brings, in pieces that any
//             threads write and read. Rows are its tokens x its query heads.
//   Words     carry their own flags (flagged_words.cuh): a reader takes them as they arrive and empties them for the exchange after the next.
//   Epoch     counts the exchanges of a mailbox, in device memory, so that a captured exchange can be replayed. A rank fills the slots of one
//             parity again only when the root has acknowledged the exchange before the last, which it does as it begins the next: nobody runs further
//             ahead than that.
//   Waiting   ends after `timeout_ns`, or when `abort` is set; then `failed` is set, and the mailboxes are worth nothing any more.
//
// Kernels that wait for each other: where ranks share a GPU, no call that waits for the whole GPU may come between their launches.
struct PeerMailbox {
    static constexpr std::size_t kRanksMax = 16;
    static constexpr std::size_t kHeaderBytes = 256;
    static constexpr std::size_t kSlotBytes = 1280 << 10;  // 64 rows of 32 heads of 128

    // A root has slots for all ranks, others have none.
    static constexpr std::size_t bytes(int rank_count, bool is_root) {
        return kHeaderBytes + (is_root ? 2 * static_cast<std::size_t>(rank_count) * kSlotBytes : 0);
    }
    static constexpr std::size_t slot_bytes(std::size_t rows, int head_dim) {
        return rows * static_cast<std::size_t>(head_dim / 4) * 5 * sizeof(float);
    }
};

// Consecutive heads of one head part; its sequence parts are consecutive ranks.
struct PeerExchange {
    int rank, rank_count, root;
    int sequence_parts;
    int first_heads[PeerMailbox::kRanksMax + 1];  // of each head part, and their end: query heads
    int token_count;
    int head_dim;          // a multiple of 4
    const float* partial;  // [token][query head of this rank's part][dim], normalised
    const float* lse;      // [token][query head of this rank's part], natural; -inf: saw nothing
    std::byte* merged;     // out, at the root: [token][query head][dim] in `dtype`; any memory that the GPU reaches
    Dtype dtype;

    std::byte* mailboxes
        [PeerMailbox::kRanksMax];  // as this GPU reaches them: the root needs all, the others their own and the root's
    const volatile std::uint32_t* abort;  // of the host
    volatile std::uint32_t* failed;       // of the host
    std::uint64_t timeout_ns;
};

// Before the first exchange, and before a peer is told of the mailbox. Waits.
void reset_peer_mailbox(DeviceSpan<std::byte> mailbox);
// Loads the kernel, which else happens at the first launch and waits for the whole GPU.
void load_peer_exchange();

//   Async   queued on `stream`. May be captured.
//   Errors  std::invalid_argument where shapes do not fit together or a slot; CudaError where the launch is refused.
//   Cost    each row crosses once, with a quarter more for the log-sum-exps; the floor is one store across and one poll.
void exchange_rows(const PeerExchange& work, Stream stream);

// std::invalid_argument, as exchange_rows, but for partial and lse, which a decode that joins in its tail does not read here.
void check_exchange(const PeerExchange& work);

}  // namespace kvgrid::kernels
