#include "worker/gpu/batch_plan.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/cuda_error.h"
#include "worker/token_runs.h"

namespace kvgrid::worker {

using kernels::DecodeItem;
using kernels::ListRun;
using kernels::PageList;

namespace {}  // namespace

struct BatchPlan::Image {
    std::vector<DecodeItem> items;
    std::vector<PageList> lists;
    std::vector<ListRun> runs;
    int decode_count = 0;  // of the items
    std::uint64_t decode_pages = 0, listed_pages = 0;
    int decode_pages_max = 0, list_pages_max = 0;  // of any list
    kernels::DecodeShape shape{};

    std::size_t lists_offset() const { return aligned_for_gpu(items.size() * sizeof(DecodeItem)); }
    std::size_t runs_offset() const { return lists_offset() + aligned_for_gpu(lists.size() * sizeof(PageList)); }
    std::size_t bytes() const { return runs_offset() + aligned_for_gpu(runs.size() * sizeof(ListRun)); }
};

BatchPlan::BatchPlan(const DeviceModelShape& model, int multiprocessor_count, GpuMemoryCounts& counts)
    : model_(model),
      multiprocessor_count_(multiprocessor_count),
      host_image_(counts),
      image_(counts, GpuMemoryKind::scratch),
      decode_schedule_(counts, GpuMemoryKind::scratch),
      chunk_schedule_(counts, GpuMemoryKind::scratch) {}

void BatchPlan::make(std::span<const BatchPart> parts, const Class& of, const PageLists& lists,
                     const GpuStream& stream) {
    Image image;
    // The kernel is chosen by the most new tokens: where bits must not depend on the batch, by the most there can be.
    image.shape = {.heads = model_.heads,
                   .query_count_max = model_.spec.deterministic ? kernels::kDecodeQueriesMax : 1,
                   .strictly_earlier = model_.spec.reads_later_layer(of.layer),
                   .chunk_query_count_max = 0};
    describe(parts, of.layer, lists, /*are_chunks=*/false, image);
    image.decode_count = static_cast<int>(image.items.size());
    image.decode_pages = image.listed_pages;
    image.decode_pages_max = image.list_pages_max;
    describe(parts, of.layer, lists, /*are_chunks=*/true, image);
    send(image, stream);
    schedule_decodes(of,
                     {.page_count = static_cast<std::int64_t>(image.decode_pages), .pages_max = image.decode_pages_max},
                     lists, stream);
    schedule_chunks(of, lists, stream);
}

int BatchPlan::decode_blocks_needed(const DeviceModelShape& model, std::span<const BatchPart> parts, int layer) {
    const std::size_t stream = model.first_stream(layer);
    const int units = kernels::DecodeShape{model.heads, kernels::kDecodeQueriesMax}.units_per_stream();
    int blocks = 0;
    for (const BatchPart& part : parts) {
        if (part.tokens > kernels::kDecodeQueriesMax) continue;
        const auto pages = static_cast<int>(part.sequence->streams[stream].size());
        blocks += model.heads.kv_heads * units * kernels::fixed_part_count(pages);
    }
    return blocks;
}

PlanSize BatchPlan::size() const {
    const bool has_chunks = chunk_count() > 0;
    return {.items = items_.size,
            .chunks = static_cast<std::size_t>(chunk_count()),
            .runs = runs_.size,
            .units = units_.size,
            .blocks = blocks_.size,
            .chunk_blocks = chunk_blocks_.size,
            .query_count_max = shape_.query_count_max,
            .chunk_query_count_max = shape_.chunk_query_count_max,
            .chunk_pages_max = has_chunks ? list_pages_max_ : 0,
            .cut = shape_.cut};
}

// Adds the parts that are chunks, or those that are not.
void BatchPlan::describe(std::span<const BatchPart> parts, int layer, const PageLists& lists, bool are_chunks,
                         Image& image) const {
    const int heads = model_.heads.kv_heads;
    const std::size_t stream = model_.first_stream(layer);
    int& query_count_max = are_chunks ? image.shape.chunk_query_count_max : image.shape.query_count_max;
    int row = 0;
    for (const BatchPart& part : parts) {
        const int first_row = row;
        row += part.tokens;
        if ((part.tokens > kernels::kDecodeQueriesMax) != are_chunks) continue;
        const SequenceState& sequence = *part.sequence;
        const Window window = window_of_layer(model_.spec.layers[layer], sequence.window);
        const auto pages = static_cast<std::int32_t>(sequence.streams[stream].size());
        const auto mine =
            token_runs_of_part(sequence.length, part.tokens, sequence.spread, model_.grid, model_.sequence_part);
        auto entry = static_cast<std::int32_t>(pages - mine.size());  // the new tokens' pages are the last ones
        for (const TokenRun& run : mine) {
            image.runs.push_back({static_cast<std::int32_t>(image.items.size()), entry++, run.slot(), run.token_count,
                                  first_row + static_cast<int>(run.first_token - sequence.length)});
        }
        image.items.push_back({sequence.length, window.tokens, window.sinks, part.tokens, first_row});
        for (int head = 0; head < heads; ++head) {
            image.lists.push_back(lists.list_of(sequence.id, head));
            image.lists.back().count = pages;
        }
        query_count_max = std::max(query_count_max, part.tokens);
        image.listed_pages += static_cast<std::uint64_t>(pages) * heads;
        image.list_pages_max = std::max(image.list_pages_max, pages);
    }
}

void BatchPlan::send(const Image& image, const GpuStream& stream) {
    host_image_.grow(image.bytes());
    if (image_.grow(image.bytes())) ++move_count_;
    std::memcpy(host_image_.data(), image.items.data(), image.items.size() * sizeof(DecodeItem));
    std::memcpy(host_image_.data() + image.lists_offset(), image.lists.data(), image.lists.size() * sizeof(PageList));
    std::memcpy(host_image_.data() + image.runs_offset(), image.runs.data(), image.runs.size() * sizeof(ListRun));
    kernels::check_cuda(
        cudaMemcpyAsync(image_.data(), host_image_.data(), image.bytes(), cudaMemcpyHostToDevice, stream.get()),
        "cudaMemcpyAsync of a batch's plan");
    shape_ = image.shape;
    decode_count_ = image.decode_count;
    items_ = image_.span<const DecodeItem>(0, image.items.size());
    lists_ = image_.span<const PageList>(image.lists_offset(), image.lists.size());
    runs_ = image_.span<const ListRun>(image.runs_offset(), image.runs.size());
    listed_pages_ = image.listed_pages;
    list_pages_max_ = image.list_pages_max;
}

// `load`: of the pages that are listed, each once.
void BatchPlan::schedule_decodes(const Class& of, kernels::DecodeLoad load, const PageLists& lists,
                                 const GpuStream& stream) {
    units_ = {};
    blocks_ = {};
    if (decode_count_ == 0) return;
    const std::size_t list_count = static_cast<std::size_t>(decode_count_) * model_.heads.kv_heads;
    const std::size_t unit_count = list_count * shape_.units_per_stream();
    load.unit_count = static_cast<std::int64_t>(unit_count);
    load.page_count *= shape_.units_per_stream();
    load.page_bytes = model_.spec.page_bytes();
    load.multiprocessor_count = multiprocessor_count_;
    if (!model_.spec.deterministic) shape_.cut = kernels::best_cut_of(shape_, load);
    imbalance_ = kernels::imbalance_of(shape_.cut, load);
    const auto block_count =
        static_cast<std::size_t>(kernels::block_count_of(shape_.cut, load.unit_count, of.block_count));
    const std::size_t blocks_offset = aligned_for_gpu(unit_count * sizeof(kernels::DecodeUnit));
    const std::size_t costs_offset = blocks_offset + aligned_for_gpu(block_count * sizeof(kernels::DecodeBlock));
    if (decode_schedule_.grow(costs_offset + (unit_count + 1) * sizeof(std::int32_t))) ++move_count_;
    units_ = decode_schedule_.span<kernels::DecodeUnit>(0, unit_count);
    blocks_ = decode_schedule_.span<kernels::DecodeBlock>(blocks_offset, block_count);
    kernels::schedule_decode({.shape = shape_,
                              .items = {items_.data, static_cast<std::size_t>(decode_count_)},
                              .lists = {lists_.data, list_count},
                              .entries = lists.entries(),
                              .units = units_,
                              .blocks = blocks_,
                              .cost_before = decode_schedule_.span<std::int32_t>(costs_offset, unit_count + 1),
                              .kv_layer = of.kv_layer,
                              .deterministic = model_.spec.deterministic},
                             stream.get());
}

void BatchPlan::schedule_chunks(const Class& of, const PageLists& lists, const GpuStream& stream) {
    chunk_blocks_ = {};
    if (chunk_count() == 0) return;
    const std::size_t first_list = static_cast<std::size_t>(decode_count_) * model_.heads.kv_heads;
    const kernels::PrefillBatch batch{.shape = shape_,
                                      .items = {items_.data + decode_count_, static_cast<std::size_t>(chunk_count())},
                                      .lists = {lists_.data + first_list, lists_.size - first_list},
                                      .entries = lists.entries(),
                                      .kv_layer = of.kv_layer,
                                      .multiprocessor_count = multiprocessor_count_,
                                      .deterministic = model_.spec.deterministic};
    const auto chunk_block_count = static_cast<std::size_t>(kernels::prefill_block_count(shape_, chunk_count()));
    const std::size_t streams_offset = aligned_for_gpu(chunk_block_count * sizeof(kernels::PrefillBlock));
    const std::size_t stream_count = batch.lists.size + 1;
    if (chunk_schedule_.grow(streams_offset + stream_count * sizeof(kernels::PrefillStream))) ++move_count_;
    chunk_blocks_ = chunk_schedule_.span<kernels::PrefillBlock>(0, chunk_block_count);
    kernels::schedule_prefill({.batch = batch,
                               .blocks = chunk_blocks_,
                               .streams = chunk_schedule_.span<kernels::PrefillStream>(streams_offset, stream_count)},
                              stream.get());
}

}  // namespace kvgrid::worker
