#include "tests/unit/kernels/cuda/decode_with_twin.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <stdexcept>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/peer_exchange.h"

namespace kvgrid::kernels {

namespace {

constexpr int kExchanges = 3;
constexpr std::uint64_t kPatienceNs = 5'000'000'000;

bool is_empty(const std::vector<std::byte>& mailbox) {
    return std::all_of(mailbox.begin() + PeerMailbox::kHeaderBytes, mailbox.end(),
                       [](std::byte byte) { return byte == std::byte{0xff}; });
}

}  // namespace

std::vector<std::byte> decode_with_twin(const Decode& call, bool twin_has_other_heads) {
    const int heads = call.shape.heads.query_heads, parts = twin_has_other_heads ? 2 : 1;
    const std::size_t rows = static_cast<std::size_t>(call.row_count) * heads;
    const bool fits = PeerMailbox::slot_bytes(rows, call.shape.heads.head_dim) <= PeerMailbox::kSlotBytes;
    if (!fits || call.chunk_count > 0 || !can_join(call.shape, call.dtype, call.kv_dtype)) return {};

    DeviceArray<std::byte> of_root(PeerMailbox::bytes(2, true)), of_twin(PeerMailbox::bytes(2, false));
    reset_peer_mailbox(of_root.span());
    reset_peer_mailbox(of_twin.span());
    const std::vector<std::byte> poison(parts * rows * call.shape.heads.head_dim * byte_size(call.dtype),
                                        std::byte{0xff});
    const DeviceArray<std::byte> merged{std::span<const std::byte>(poison)};
    const DeviceArray<std::uint32_t> words{std::span<const std::uint32_t>(std::vector<std::uint32_t>(2))};
    PeerExchange join{.rank = 0,
                      .rank_count = 2,
                      .root = 0,
                      .sequence_parts = 2 / parts,
                      .first_heads = {0, heads, 2 * heads},
                      .token_count = call.row_count,
                      .head_dim = call.shape.heads.head_dim,
                      .partial = nullptr,
                      .lse = nullptr,
                      .merged = merged.span().data,
                      .dtype = call.dtype,
                      .mailboxes = {of_root.span().data, of_twin.span().data},
                      .abort = words.span().data,
                      .failed = words.span().data + 1,
                      .timeout_ns = kPatienceNs};
    Decode joined = call;  // whose partial and lse are scratch now
    joined.rounded = {};
    joined.join = &join;
    for (int exchange = 0; exchange < kExchanges; ++exchange) {
        for (const int rank : {1, 0}) {
            join.rank = rank;
            decode(joined, nullptr);
        }
    }
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    if (words.download()[1] != 0) throw std::runtime_error("a rank waited in vain");
    if (!is_empty(of_root.download())) throw std::runtime_error("the root left something in its mailbox");
    return merged.download();
}

}  // namespace kvgrid::kernels
