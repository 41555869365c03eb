#include "worker/gpu/peer_join.h"

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstring>
#include <utility>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/peer_exchange.h"
#include "worker/gpu/timeouts.h"

namespace kvgrid::worker {

using kernels::PeerMailbox;

namespace {

constexpr std::chrono::seconds kGrace{5};  // for a kernel to end that is past its time
constexpr std::chrono::milliseconds kFarewell{1'000};
constexpr std::chrono::seconds kTailMeeting{10};  // threads of one process, which have all got the operation

}  // namespace

PeerJoin::PeerJoin(const JoinPlace& place, std::unique_ptr<PeerMailboxes> mailboxes, bool share_process,
                   const GpuStream& stream, GpuMemoryCounts& counts)
    : control_(place.collective),
      rank_(place.collective.rank()),
      size_(place.collective.size()),
      root_(place.root),
      spans_(place.spans),
      mailboxes_(std::move(mailboxes)),
      meeting_(share_process ? &control_ : nullptr),
      stream_(stream),
      rows_(counts, GpuMemoryKind::scratch),
      merged_(counts),
      words_(counts) {
    words_.grow(2 * sizeof(std::uint32_t));
    word(kAbort) = 0;
    word(kFailed) = 0;
    static std::atomic<std::uint64_t> joins = 0;
    tail_.exchange = &exchange_;
    tail_.serial = ++joins;
    tail_.meet = [this] { return meeting_.meet(deadline_in(kTailMeeting)); };
}

// Another thread's kernel may still acknowledge what it got, or be late with what it brings.
PeerJoin::~PeerJoin() {
    static_cast<void>(meeting_.meet(deadline_in(kFarewell)));
}

volatile std::uint32_t& PeerJoin::word(Word which) const {
    return reinterpret_cast<std::uint32_t*>(words_.data())[which];
}

bool PeerJoin::has_room(const ModelSpec& spec, const GridShape& grid, int tokens) const {
    const std::size_t rows = static_cast<std::size_t>(tokens) * kv_heads_per_part_max(spec, grid) * spec.group();
    return spec.head_dim % 4 == 0 && PeerMailbox::slot_bytes(rows, spec.head_dim) <= PeerMailbox::kSlotBytes;
}

void PeerJoin::prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation) {
    if (spec_ != spec) spec_ = spec;
    grid_ = grid;
    tokens_ = tokens;
    operation_ = operation;
    const std::size_t rows = JoinBlock::rows_of(spec, grid, rank_, tokens);
    const std::size_t lse_offset = aligned_for_gpu(rows * spec.head_dim * sizeof(float));
    rows_.grow(lse_offset + rows * sizeof(float));
    if (is_root()) merged_.grow(whole_bytes());
    partial_ = {reinterpret_cast<float*>(rows_.data()), rows * spec.head_dim};
    lse_ = {reinterpret_cast<float*>(rows_.data() + lse_offset), rows};
    exchange_ = exchange();
    tail_.is_queued = false;
}

bool PeerJoin::joins_into(std::span<std::byte> output) {
    exchange_.merged = output.data();
    return true;
}

Result<comm::Payload> PeerJoin::finish(Deadline deadline) {
    if (is_broken_) return {Errc::peer_lost, "the join was given up before: form a new generation"};
    const ScopedSpan span(spans_, is_root() ? SpanKind::merge : SpanKind::gather, operation_);
    Status done = tail_.is_queued ? meeting_.meet(deadline) : queue(deadline);
    if (done) done = wait(deadline);
    if (!done) {
        is_broken_ = true;
        return done.error();
    }
    if (!is_root()) return comm::Payload{};
    bytes_received_ += JoinBlock::of(spec_, grid_, tokens_).bytes * (size_ - 1);
    if (exchange_.merged != merged_.data()) return comm::Payload{};
    std::shared_ptr<std::byte[]> whole(new std::byte[whole_bytes()]);
    std::memcpy(whole.get(), merged_.data(), whole_bytes());
    return comm::Payload(whole, {whole.get(), whole_bytes()});
}

// Its own time is the last resort: at the deadline of an operation the host ends it.
kernels::PeerExchange PeerJoin::exchange() const {
    kernels::PeerExchange work{.rank = rank_,
                               .rank_count = size_,
                               .root = root_,
                               .sequence_parts = grid_.sequence_parts,
                               .first_heads = {},
                               .token_count = tokens_,
                               .head_dim = spec_.head_dim,
                               .partial = partial_.data(),
                               .lse = lse_.data(),
                               .merged = merged_.data(),
                               .dtype = spec_.dtype,
                               .mailboxes = {},
                               .abort = &word(kAbort),
                               .failed = &word(kFailed),
                               .timeout_ns = std::chrono::nanoseconds(kGpuPatience).count()};
    for (int part = 0; part < grid_.head_parts; ++part) {
        const HeadRange heads = query_heads_of_part(spec_, grid_, part);
        work.first_heads[part + 1] = heads.first + heads.count;
    }
    std::ranges::copy(mailboxes_->all(), work.mailboxes);
    return work;
}

Status PeerJoin::queue(Deadline deadline) {
    if (Status met = meeting_.meet(deadline); !met) return met;
    kernels::exchange_rows(exchange_, stream_.get());
    return meeting_.meet(deadline);
}

Status PeerJoin::wait(Deadline deadline) {
    for (;;) {
        const cudaError_t state = cudaStreamQuery(stream_.get());
        if (state == cudaSuccess) break;
        if (state != cudaErrorNotReady) kernels::check_cuda(state, "cudaStreamQuery");
        const TimePoint now = std::chrono::steady_clock::now();
        if (control_.is_cancelled() || now > deadline) word(kAbort) = 1;
        stream_.idle();
        if (now > deadline + kGrace) fatal("a join's kernel does not end: the GPU is stuck");
    }
    if (word(kFailed) == 0) return {};
    if (control_.is_cancelled()) return {Errc::peer_lost, "the join was cancelled"};
    return {Errc::deadline_exceeded, "the join: not all ranks' rows came in time"};
}

}  // namespace kvgrid::worker
