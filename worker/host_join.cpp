#include "worker/host_join.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/merge_parts.h"

namespace kvgrid::worker {

namespace {

constexpr std::size_t kAlignment = JoinBlock::kAlignment;
constexpr std::size_t kHeaderBytes = JoinBlock::kPartialOffset;

}  // namespace

// A buffer that grows and is never cleared.
struct HostJoin::AlignedBytes {
    std::byte* data = nullptr;
    std::size_t size = 0;

    ~AlignedBytes() { std::free(data); }
    void grow(std::size_t bytes) {
        if (bytes <= size) return;
        std::free(data);
        size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
        data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, size));
        if (!data) throw std::bad_alloc();
    }
};

HostJoin::HostJoin(comm::Collective& collective, int root, SpanRecorder* spans)
    : collective_(collective),
      root_(root),
      spans_(spans),
      mine_(std::make_unique<AlignedBytes>()),
      all_(std::make_unique<AlignedBytes>()) {}

HostJoin::~HostJoin() = default;

void HostJoin::prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation) {
    if (spec_ != spec) spec_ = spec;
    grid_ = grid;
    tokens_ = tokens;
    operation_ = operation;
    if (collective_.size() == 1) {
        whole_bytes_ = spec.row_bytes() * spec.query_heads * tokens;
        whole_.reset(new std::byte[whole_bytes_]);
        return;
    }
    block_ = JoinBlock::of(spec, grid, tokens);
    mine_->grow(block_.bytes);

    std::memset(mine_->data, 0, kHeaderBytes);
    std::memcpy(mine_->data, &operation_, sizeof operation_);
    const std::size_t rows = JoinBlock::rows_of(spec, grid, collective_.rank(), tokens);
    partial_ = {reinterpret_cast<float*>(mine_->data + kHeaderBytes), rows * spec.head_dim};
    lse_ = {reinterpret_cast<float*>(mine_->data + block_.lse_offset), rows};
}

Result<comm::Payload> HostJoin::finish(Deadline deadline) {
    if (collective_.size() == 1) return comm::Payload(whole_, {whole_.get(), whole_bytes_});
    if (Status gathered = gather(deadline); !gathered) return gathered.error();
    return collective_.rank() == root_ ? merge() : comm::Payload{};
}

Status HostJoin::gather(Deadline deadline) {
    const ScopedSpan span(spans_, SpanKind::gather, operation_);
    const bool is_root = collective_.rank() == root_;
    std::span<std::byte> all;
    if (is_root) {
        all_->grow(block_.bytes * collective_.size());
        all = {all_->data, block_.bytes * collective_.size()};
    }
    if (Status done = collective_.gather({mine_->data, block_.bytes}, all, root_, deadline); !done) return done;
    if (!is_root) return {};
    bytes_received_ += block_.bytes * (collective_.size() - 1);
    for (int rank = 0; rank < collective_.size(); ++rank) {
        std::uint64_t theirs = 0;
        std::memcpy(&theirs, all_->data + rank * block_.bytes, sizeof theirs);
        if (theirs != operation_) {
            return {Errc::corrupt,
                    fmt::format("rank {} joined operation {}, the lead operation {}", rank, theirs, operation_)};
        }
    }
    return {};
}

comm::Payload HostJoin::merge() const {
    const ScopedSpan span(spans_, SpanKind::merge, operation_);
    const std::size_t row_bytes = spec_.row_bytes() * spec_.query_heads;
    std::shared_ptr<std::byte[]> merged(new std::byte[row_bytes * tokens_]);
    const std::span<std::byte> out{merged.get(), row_bytes * tokens_};
    const std::byte* blocks = all_->data;
    for (int head_part = 0; head_part < grid_.head_parts; ++head_part) {
        const HeadRange heads = query_heads_of_part(spec_, grid_, head_part);
        const std::byte* first = blocks + grid_.rank(head_part, 0) * block_.bytes;
        const std::size_t rows = static_cast<std::size_t>(tokens_) * heads.count;
        const std::size_t stride = block_.bytes / sizeof(float);
        const std::size_t others = (grid_.sequence_parts - 1) * stride;
        kernels::merge_parts_cpu(
            {.partial = {reinterpret_cast<const float*>(first + kHeaderBytes), others + rows * spec_.head_dim},
             .lse = {reinterpret_cast<const float*>(first + block_.lse_offset), others + rows},
             .part_stride = stride,
             .part_count = grid_.sequence_parts,
             .token_count = tokens_,
             .head_count = heads.count,
             .head_dim = spec_.head_dim,
             .merged = out,
             .merged_dtype = spec_.dtype,
             .merged_heads = spec_.query_heads,
             .first_head = heads.first});
    }
    return {merged, out};
}

}  // namespace kvgrid::worker
