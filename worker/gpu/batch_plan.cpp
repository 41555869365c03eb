#include "worker/gpu/batch_plan.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_schedule_rules.h"
#include "worker/token_runs.h"

namespace kvgrid::worker {

using kernels::DecodeItem;
using kernels::ListRun;
using kernels::PageList;

namespace {

constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::size_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

struct BatchPlan::Image {
    std::vector<DecodeItem> items;
    std::vector<PageList> lists;
    std::vector<ListRun> runs;
    std::size_t decode_count = 0;  // of the items
    int query_count_max[2] = {1, 1};
    std::uint64_t listed_pages[2] = {};
    bool strictly_earlier = false;

    std::size_t lists_offset() const { return aligned(items.size() * sizeof(DecodeItem)); }
    std::size_t runs_offset() const { return lists_offset() + aligned(lists.size() * sizeof(PageList)); }
    std::size_t bytes() const { return runs_offset() + aligned(runs.size() * sizeof(ListRun)); }
};

BatchPlan::BatchPlan(const DeviceModelShape& shape, int block_count, GpuMemoryCounts& counts)
    : shape_(shape),
      block_count_(block_count),
      host_image_(counts),
      image_(counts, GpuMemoryKind::scratch),
      schedule_(counts, GpuMemoryKind::scratch) {}

void BatchPlan::make(std::span<const BatchPart> parts, int layer, int kv_layer, const PageLists& lists,
                     const GpuStream& stream) {
    Image image;
    describe(parts, layer, lists, image);
    send(image, stream);
    schedule(kv_layer, lists, stream);
}

void BatchPlan::describe(std::span<const BatchPart> parts, int layer, const PageLists& lists, Image& image) const {
    const int heads = shape_.heads.kv_heads;
    const std::size_t stream = shape_.first_stream(layer);
    image.strictly_earlier = shape_.spec.reads_later_layer(layer);
    for (const bool is_chunk : {false, true}) {
        int row = 0;
        for (const BatchPart& part : parts) {
            const int first_row = row;
            row += part.tokens;
            if ((part.tokens > kernels::kDecodeQueriesMax) != is_chunk) continue;
            const SequenceState& sequence = *part.sequence;
            const Window window = window_of_layer(shape_.spec.layers[layer], sequence.window);
            const auto pages = static_cast<std::int32_t>(sequence.streams[stream].size());
            const auto mine =
                token_runs_of_part(sequence.length, part.tokens, sequence.spread, shape_.grid, shape_.sequence_part);
            auto entry = static_cast<std::int32_t>(pages - mine.size());  // the new tokens' pages are the last ones
            for (const TokenRun& run : mine) {
                image.runs.push_back({static_cast<std::int32_t>(image.items.size()), entry++, run.slot(),
                                      run.token_count, first_row + static_cast<int>(run.first_token - sequence.length)});
            }
            image.items.push_back({sequence.length, window.tokens, window.sinks, part.tokens, first_row});
            for (int head = 0; head < heads; ++head) {
                image.lists.push_back(lists.list_of(sequence.id, head));
                image.lists.back().count = pages;
            }
            image.query_count_max[is_chunk] = std::max(image.query_count_max[is_chunk], part.tokens);
            image.listed_pages[is_chunk] += static_cast<std::uint64_t>(pages) * heads;
        }
        if (!is_chunk) image.decode_count = image.items.size();
    }
}

void BatchPlan::send(const Image& image, const GpuStream& stream) {
    host_image_.grow(image.bytes());
    if (image_.grow(image.bytes())) ++move_count_;
    std::memcpy(host_image_.data(), image.items.data(), image.items.size() * sizeof(DecodeItem));
    std::memcpy(host_image_.data() + image.lists_offset(), image.lists.data(), image.lists.size() * sizeof(PageList));
    std::memcpy(host_image_.data() + image.runs_offset(), image.runs.data(), image.runs.size() * sizeof(ListRun));
    kernels::check_cuda(cudaMemcpyAsync(image_.data(), host_image_.data(), image.bytes(), cudaMemcpyHostToDevice,
                                        stream.get()),
                        "cudaMemcpyAsync of a batch's plan");

    const std::size_t heads = shape_.heads.kv_heads, chunk_count = image.items.size() - image.decode_count;
    lists_ = image_.span<const PageList>(image.lists_offset(), image.lists.size());
    runs_ = image_.span<const ListRun>(image.runs_offset(), image.runs.size());
    decodes_.items = image_.span<const DecodeItem>(0, image.decode_count);
    decodes_.lists = {lists_.data, image.decode_count * heads};
    chunks_.items = {decodes_.items.data + image.decode_count, chunk_count};
    chunks_.lists = {lists_.data + image.decode_count * heads, chunk_count * heads};
    for (const bool is_chunk : {false, true}) {
        Group& group = is_chunk ? chunks_ : decodes_;
        group.shape = {shape_.heads, image.query_count_max[is_chunk], image.strictly_earlier};
        group.listed_pages = image.listed_pages[is_chunk];
    }
}

void BatchPlan::schedule(int kv_layer, const PageLists& lists, const GpuStream& stream) {
    units_ = {};
    blocks_ = {};
    if (decodes_.items.size == 0) return;
    const std::size_t unit_count = decodes_.lists.size * decodes_.shape.units_per_stream();
    imbalance_ = kernels::schedule_imbalance(static_cast<std::int64_t>(decodes_.listed_pages) * decodes_.shape.units_per_stream(),
                                             static_cast<int>(unit_count), block_count_);
    const std::size_t blocks_offset = aligned(unit_count * sizeof(kernels::DecodeUnit));
    const std::size_t costs_offset = blocks_offset + aligned(block_count_ * sizeof(kernels::DecodeBlock));
    if (schedule_.grow(costs_offset + (unit_count + 1) * sizeof(std::int32_t))) ++move_count_;
    units_ = schedule_.span<kernels::DecodeUnit>(0, unit_count);
    blocks_ = schedule_.span<kernels::DecodeBlock>(blocks_offset, block_count_);
    kernels::schedule_decode({.shape = decodes_.shape,
                              .items = decodes_.items,
                              .lists = decodes_.lists,
                              .entries = lists.entries(),
                              .units = units_,
                              .blocks = blocks_,
                              .cost_before = schedule_.span<std::int32_t>(costs_offset, unit_count + 1),
                              .kv_layer = kv_layer},
                             stream.get());
}

}  // namespace kvgrid::worker
