#include "worker/gpu/gpu_join.h"

#include <cstring>
#include <utility>

#include "kernels/cuda/device_merge_parts.h"

namespace kvgrid::worker {

GpuJoin::GpuJoin(const JoinPlace& place, std::unique_ptr<comm::DeviceGather> gather, const GpuStream& stream,
                 GpuMemoryCounts& counts)
    : rank_(place.collective.rank()),
      size_(place.collective.size()),
      root_(place.root),
      spans_(place.spans),
      gather_(std::move(gather)),
      stream_(stream),
      blocks_(counts, GpuMemoryKind::scratch),
      merged_(counts) {}

void GpuJoin::prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation) {
    if (spec_ != spec) spec_ = spec;
    grid_ = grid;
    tokens_ = tokens;
    operation_ = operation;
    block_ = JoinBlock::of(spec, grid, tokens);
    blocks_.grow(block_.bytes * (is_root() ? size_ : 1));
    if (is_root()) merged_.grow(whole_bytes());
    std::byte* const own = blocks_.data() + (is_root() ? rank_ * block_.bytes : 0);
    const std::size_t rows = JoinBlock::rows_of(spec, grid, rank_, tokens);
    partial_ = {reinterpret_cast<float*>(own + JoinBlock::kPartialOffset), rows * spec.head_dim};
    lse_ = {reinterpret_cast<float*>(own + block_.lse_offset), rows};
}

Result<comm::Payload> GpuJoin::finish(Deadline deadline) {
    if (Status gathered = gather(deadline); !gathered) return gathered.error();
    if (!is_root()) {
        if (Status done = gather_->wait(stream_.get(), deadline); !done) return done.error();
        return comm::Payload{};
    }
    const ScopedSpan span(spans_, SpanKind::merge, operation_);
    merge();
    if (Status done = gather_->wait(stream_.get(), deadline); !done) return done.error();
    bytes_received_ += block_.bytes * (size_ - 1);
    std::shared_ptr<std::byte[]> whole(new std::byte[whole_bytes()]);
    std::memcpy(whole.get(), merged_.data(), whole_bytes());
    return comm::Payload(whole, {whole.get(), whole_bytes()});
}

Status GpuJoin::gather(Deadline deadline) {
    const ScopedSpan span(spans_, SpanKind::gather, operation_);
    const std::byte* const mine = is_root() ? nullptr : blocks_.data();
    std::byte* const all = is_root() ? blocks_.data() : nullptr;
    return gather_->queue(mine, all, block_.bytes, root_, stream_.get(), deadline);
}

void GpuJoin::merge() {
    const std::size_t stride = block_.bytes / sizeof(float);
    const std::size_t others = (grid_.sequence_parts - 1) * stride;
    for (int head_part = 0; head_part < grid_.head_parts; ++head_part) {
        const HeadRange heads = query_heads_of_part(spec_, grid_, head_part);
        const std::byte* const first = blocks_.data() + grid_.rank(head_part, 0) * block_.bytes;
        const std::size_t rows = static_cast<std::size_t>(tokens_) * heads.count;
        kernels::merge_parts_on_device(
            {.partial = {reinterpret_cast<const float*>(first + JoinBlock::kPartialOffset),
                         others + rows * spec_.head_dim},
             .lse = {reinterpret_cast<const float*>(first + block_.lse_offset), others + rows},
             .part_stride = stride,
             .part_count = grid_.sequence_parts,
             .token_count = tokens_,
             .head_count = heads.count,
             .head_dim = spec_.head_dim,
             .merged = {merged_.data(), whole_bytes()},
             .merged_dtype = spec_.dtype,
             .merged_heads = spec_.query_heads,
             .first_head = heads.first},
            stream_.get());
    }
}

}  // namespace kvgrid::worker
