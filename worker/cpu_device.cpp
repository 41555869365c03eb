#include "worker/cpu_device.h"

#include <fmt/format.h>

#include <cstring>

#include "kernels/append.h"
#include "kernels/attention.h"
#include "kernels/merge_parts.h"
#include "worker/head_slices.h"
#include "worker/host_slab.h"
#include "worker/token_runs.h"

namespace kvgrid::worker {

namespace {

class CpuModel final : public DeviceModel {
  public:
    CpuModel(const DeviceModelShape& shape, HostSlab slab, kernels::ThreadPool& threads)
        : shape_(shape), slab_(std::move(slab)), threads_(threads) {}

    Status begin(std::span<const BatchPart>) override { return {}; }

    void copy_pages(std::span<const kernels::PagePair> pairs) override {
        const kernels::Slab slab = slab_.view();
        for (const kernels::PagePair& pair : pairs) {
            std::memcpy(slab.page(pair.target), slab.page(pair.source), slab.page_bytes);
        }
    }

    Status run(const DeviceLayer& call) override {
        const DeviceLayer layer = call.has_all_heads ? cut(call) : call;
        if (!layer.k.empty()) append(layer);
        if (layer.q.empty()) return {};
        if (layer.whole.empty()) {
            attend(layer, layer.partial, layer.lse);
            return {};
        }
        partial_.resize(layer.q.size() / byte_size(shape_.spec.dtype));
        lse_.resize(partial_.size() / shape_.heads.head_dim);
        attend(layer, partial_, lse_);
        round(layer);
        return {};
    }

    Result<std::uint64_t> prepare(const DeviceBatch&) override { return std::uint64_t{0}; }
    Status replay(std::span<const StepId>, std::span<const int>, std::uint64_t) override {
        return {Errc::unsupported, "a CPU has no graphs: call the layers"};
    }
    void end(StepId) override {}

    void read(std::span<const kernels::PageRun> runs, int row_count, std::span<std::byte> out) override {
        const std::size_t bytes = out.size() / 2;
        kernels::read_pages_cpu({.kv_heads = shape_.heads.kv_heads,
                                 .head_dim = shape_.heads.head_dim,
                                 .dtype = shape_.spec.dtype,
                                 .slab = slab_.view(),
                                 .runs = runs,
                                 .row_count = row_count,
                                 .k = out.subspan(0, bytes),
                                 .v = out.subspan(bytes, bytes)},
                                threads_);
    }

    void write(std::span<const kernels::PageRun> runs, int row_count, std::span<const std::byte> k,
               std::span<const std::byte> v) override {
        kernels::append_cpu({.kv_heads = shape_.heads.kv_heads,
                             .head_dim = shape_.heads.head_dim,
                             .dtype = shape_.spec.dtype,
                             .slab = slab_.view(),
                             .runs = runs,
                             .row_count = row_count,
                             .k = k,
                             .v = v},
                            threads_);
    }

    void forget(SequenceId) override {}

  private:
    DeviceLayer cut(const DeviceLayer& call);
    void append(const DeviceLayer& layer);
    void attend(const DeviceLayer& layer, std::span<float> partial, std::span<float> lse);
    void round(const DeviceLayer& layer) const;

    const DeviceModelShape shape_;
    HostSlab slab_;
    kernels::ThreadPool& threads_;

    // Scratch of a layer call, kept so that decoding does not allocate.
    std::vector<kernels::PageRun> runs_;
    std::vector<kernels::AttentionItem> items_;
    std::vector<std::span<const kernels::PageEntry>> streams_of_items_;
    std::vector<float> partial_, lse_;
    std::vector<std::byte> own_heads_;
};

DeviceLayer CpuModel::cut(const DeviceLayer& call) {
    const ModelSpec& spec = shape_.spec;
    const std::size_t row = spec.row_bytes();
    const HeadRange query = query_heads_of_part(spec, shape_.grid, shape_.head_part);
    const HeadRange kv = kv_heads_of_part(spec, shape_.grid, shape_.head_part);
    own_heads_.resize(call.token_count * (query.count + 2 * kv.count) * row);
    std::byte* end = own_heads_.data();
    const auto own = [&](std::span<const std::byte> all, int heads, HeadRange taken) -> std::span<const std::byte> {
        if (all.empty()) return {};
        const std::byte* const begin = end;
        end = copy_heads(all.data(), call.token_count, heads, taken, row, end);
        return {begin, end};
    };
    DeviceLayer layer = call;
    layer.q = own(call.q, spec.query_heads, query);
    layer.k = own(call.k, spec.kv_heads, kv);
    layer.v = own(call.v, spec.kv_heads, kv);
    return layer;
}

void CpuModel::append(const DeviceLayer& layer) {
    const ScopedSpan span(layer.spans, SpanKind::append, layer.operation);
    runs_.clear();
    int row = 0;
    const std::size_t stream = shape_.first_stream(layer.layer);
    for (const BatchPart& part : layer.parts) {
        const SequenceState& sequence = *part.sequence;
        const auto mine =
            token_runs_of_part(sequence.length, part.tokens, sequence.spread, shape_.grid, shape_.sequence_part);
        for (int head = 0; head < shape_.heads.kv_heads; ++head) {
            const auto& pages = sequence.streams[stream + head];
            std::size_t entry = pages.size() - mine.size();  // the new tokens' pages are the last ones
            for (const TokenRun& run : mine) {
                const int first_row = row + static_cast<int>(run.first_token - sequence.length);
                runs_.push_back({pages[entry++].page, run.slot(), run.token_count, first_row, head});
            }
        }
        row += part.tokens;
    }
    write(runs_, row, layer.k, layer.v);
}

void CpuModel::attend(const DeviceLayer& layer, std::span<float> partial, std::span<float> lse) {
    const ScopedSpan span(layer.spans, SpanKind::attend, layer.operation);
    const ModelSpec& spec = shape_.spec;
    items_.clear();
    streams_of_items_.clear();
    streams_of_items_.reserve(layer.parts.size() * shape_.heads.kv_heads);  // the items point into it
    int row = 0;
    const std::size_t stream = shape_.first_stream(layer.layer);
    for (const BatchPart& part : layer.parts) {
        const SequenceState& sequence = *part.sequence;
        const Window window = window_of_layer(spec.layers[layer.layer], sequence.window);
        const std::size_t first_stream = streams_of_items_.size();
        for (int head = 0; head < shape_.heads.kv_heads; ++head)
            streams_of_items_.emplace_back(sequence.streams[stream + head]);
        items_.push_back({.streams = std::span(streams_of_items_).subspan(first_stream),
                          .first_query = sequence.length,
                          .query_count = part.tokens,
                          .first_row = row,
                          .window = window.tokens,
                          .sinks = window.sinks});
        row += part.tokens;
    }
    kernels::attention_cpu({.heads = shape_.heads,
                            .dtype = spec.dtype,
                            .scale = static_cast<float>(spec.scale),
                            .soft_cap = static_cast<float>(spec.logit_soft_cap),
                            .strictly_earlier = spec.reads_later_layer(layer.layer),
                            .deterministic = spec.deterministic,
                            .slab = slab_.view(),
                            .items = items_,
                            .row_count = row,
                            .q = layer.q,
                            .partial = partial,
                            .lse = lse},
                           threads_);
}

void CpuModel::round(const DeviceLayer& layer) const {
    kernels::merge_parts_cpu({.partial = partial_,
                              .lse = lse_,
                              .part_stride = 0,
                              .part_count = 1,
                              .token_count = layer.token_count,
                              .head_count = shape_.heads.query_heads,
                              .head_dim = shape_.heads.head_dim,
                              .merged = layer.whole,
                              .merged_dtype = shape_.spec.dtype,
                              .merged_heads = shape_.heads.query_heads,
                              .first_head = 0});
}

}  // namespace

Result<std::unique_ptr<DeviceModel>> CpuDevice::make_model(const DeviceModelShape& shape, std::uint32_t page_count) {
    if (shape.spec.kv_dtype != KvDtype::as_model) {
        return {Errc::unsupported,
                fmt::format("kv_dtype is {}: only GPU workers store it; register the model without it",
                            name_of(shape.spec.kv_dtype))};
    }
    auto slab = HostSlab::make(shape.spec.page_bytes(), page_count);
    if (!slab) return slab.error();
    return std::unique_ptr<DeviceModel>(std::make_unique<CpuModel>(shape, std::move(*slab), threads_));
}

}  // namespace kvgrid::worker
