#include "tests/unit/kernels/cuda/decode_on_gpu.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/device_page_layout.h"
#include "tests/unit/kernels/cuda/decode_with_twin.h"
#include "tests/unit/kernels/cuda/fp8_reference.h"

namespace kvgrid::kernels {

namespace {

// From the CPU's layout to the GPU's, element by element.
std::vector<std::byte> rearrange_pages(const Attention& work, std::size_t page_count) {
    const int head_dim = work.heads.head_dim, size = static_cast<int>(byte_size(work.dtype));
    const PageLayout from{head_dim};
    const DevicePageLayout to{head_dim * size};
    std::vector<std::byte> pages(page_count * to.page_bytes());
    for (std::size_t page = 0; page < page_count; ++page) {
        const std::byte* const source = work.slab.page(static_cast<std::uint32_t>(page));
        std::byte* const target = pages.data() + page * to.page_bytes();
        for (int token = 0; token < kPageTokens; ++token) {
            for (int dim = 0; dim < head_dim; ++dim) {
                std::memcpy(target + to.k_offset(token, dim * size), source + from.k_index(token, dim) * size, size);
                std::memcpy(target + to.v_offset(token, dim * size), source + from.v_index(token, dim) * size, size);
            }
        }
    }
    return pages;
}

void quantise_block(const Attention& work, const std::byte* page, const PageEntry& entry, bool is_v,
                    std::byte* target) {
    const int head_dim = work.heads.head_dim;
    const PageLayout from{head_dim};
    const DevicePageLayout to = DevicePageLayout::of(head_dim, work.dtype, KvDtype::fp8_e4m3);
    std::vector<float> rows;
    for (int token = 0; token < static_cast<int>(entry.token_count); ++token) {
        for (int dim = 0; dim < head_dim; ++dim) {
            rows.push_back(load_element(page, is_v ? from.v_index(token, dim) : from.k_index(token, dim), work.dtype));
        }
    }
    float scale = 0;
    const std::span block(target + (is_v ? to.block_bytes() : 0), to.block_bytes());
    append_reference({head_dim, block, &scale}, 0, rows);
    std::memcpy(target + to.trailer_offset() + (is_v ? sizeof scale : 0), &scale, sizeof scale);
}

std::vector<std::byte> quantise_pages(const Attention& work, std::size_t page_count) {
    const std::size_t page_bytes =
        DevicePageLayout::of(work.heads.head_dim, work.dtype, KvDtype::fp8_e4m3).page_bytes();
    std::vector<std::byte> pages(page_count * page_bytes, std::byte{0xff});
    for (const AttentionItem& item : work.items) {
        for (const auto& stream : item.streams) {
            for (const PageEntry& entry : stream) {
                std::byte* const target = pages.data() + entry.page * page_bytes;
                for (bool is_v : {false, true}) quantise_block(work, work.slab.page(entry.page), entry, is_v, target);
            }
        }
    }
    return pages;
}

std::size_t page_count_of(const std::vector<PageEntry>& entries) {
    std::size_t count = 0;
    for (const PageEntry& entry : entries) count = std::max<std::size_t>(count, entry.page + 1);
    return count;
}

bool is_all_ones(const std::vector<float>& values) {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(values.data());
    return std::all_of(bytes, bytes + values.size() * sizeof(float), [](unsigned char byte) { return byte == 0xff; });
}

}  // namespace

DecodeHostBatch::DecodeHostBatch(const Attention& work)
    : shape{.heads = work.heads, .query_count_max = 1, .strictly_earlier = work.strictly_earlier} {
    for (const AttentionItem& item : work.items) {
        if (item.query_count > DecodeOnGpu::kQueriesMax) continue;
        shape.query_count_max = std::max(shape.query_count_max, item.query_count);
        add(item);
    }
    for (const AttentionItem& item : work.items) {
        if (item.query_count <= DecodeOnGpu::kQueriesMax) continue;
        shape.chunk_query_count_max = std::max(shape.chunk_query_count_max, item.query_count);
        add(item);
        ++chunk_count;
    }
    // The layers before have lists of the same lengths, of pages that are not meant.
    const std::vector<PageEntry> meant = std::move(entries);
    for (int layer = 0; layer <= kKvLayer; ++layer) {
        for (PageEntry entry : meant) {
            if (layer < kKvLayer) entry.page = 0;
            entries.push_back(entry);
        }
    }
    for (PageList& list : lists) list.layer_stride = static_cast<int>(meant.size());
}

void DecodeHostBatch::add(const AttentionItem& item) {
    items.push_back({item.first_query, item.window, item.sinks, item.query_count, item.first_row});
    for (const auto& pages : item.streams) {
        lists.push_back({static_cast<int>(entries.size()), static_cast<int>(pages.size())});
        entries.insert(entries.end(), pages.begin(), pages.end());
    }
}

DecodeBatch DecodeHostBatch::decodes() const {
    const std::size_t count = items.size() - chunk_count;
    return {shape, std::span(items).first(count), std::span(lists).first(count * shape.heads.kv_heads), entries,
            kKvLayer};
}

PrefillBatch DecodeHostBatch::chunks(int multiprocessor_count) const {
    const std::size_t first = items.size() - chunk_count, lists_of_chunks = chunk_count * shape.heads.kv_heads;
    return {.shape = shape,
            .items = {items.data() + first, static_cast<std::size_t>(chunk_count)},
            .lists = {lists.data() + first * shape.heads.kv_heads, lists_of_chunks},
            .entries = {entries.data(), entries.size()},
            .kv_layer = kKvLayer,
            .multiprocessor_count = multiprocessor_count};
}

namespace {

// The first or last so many of a span.
template <class T>
DeviceSpan<T> first_of(const DeviceSpan<T>& span, std::size_t count) {
    return {span.data, count};
}
template <class T>
DeviceSpan<T> last_of(const DeviceSpan<T>& span, std::size_t count) {
    return {span.data + (span.size - count), count};
}

}  // namespace

DecodeOnGpu::Outcome DecodeOnGpu::run(const Attention& work, KvDtype kv_dtype, const Cut& cut) {
    DecodeHostBatch batch(work);
    batch.shape.cut = cut.units;
    const int multiprocessor_count = cut.block_count == 0 ? current_device().multiprocessor_count : cut.block_count;
    const int block_count = std::max<int>(
        1, static_cast<int>(block_count_of(cut.units, batch.decodes().unit_count(), multiprocessor_count)));
    const int chunk_block_count = batch.chunk_count == 0 ? 0 : prefill_block_count(batch.shape, batch.chunk_count);
    const std::size_t unit_count = batch.decodes().unit_count();
    const std::size_t decode_count = batch.items.size() - batch.chunk_count, kv_heads = work.heads.kv_heads;
    const std::size_t page_count = page_count_of(batch.entries);
    const std::vector<std::byte> page_image =
        kv_dtype == KvDtype::fp8_e4m3 ? quantise_pages(work, page_count) : rearrange_pages(work, page_count);
    const DeviceArray<std::byte> pages{std::span<const std::byte>(page_image)};
    const DeviceArray<std::byte> q{std::span<const std::byte>(work.q)};
    const DeviceArray<DecodeItem> items{std::span<const DecodeItem>(batch.items)};
    const DeviceArray<PageList> lists{std::span<const PageList>(batch.lists)};
    const DeviceArray<PageEntry> entries{std::span<const PageEntry>(batch.entries)};
    const DeviceArray<DecodeUnit> units(unit_count);
    const DeviceArray<DecodeBlock> blocks(block_count);
    const DeviceArray<std::int32_t> cost_before(unit_count + 1);
    const DeviceArray<PrefillBlock> chunk_blocks(chunk_block_count);
    const DeviceArray<PrefillStream> chunk_streams(batch.chunk_count * kv_heads + 1);
    const DeviceArray<float> partial{std::span<const float>(work.partial)};
    const DeviceArray<float> lse{std::span<const float>(work.lse)};
    const std::vector<std::byte> poison(work.q.size(), std::byte{0xff});
    const DeviceArray<std::byte> rounded{std::span<const std::byte>(poison)};
    const DeviceArray<float> workspace(decode_workspace_floats(batch.shape, block_count));
    reset_decode_workspace(workspace.span(), nullptr);
    // Room for some streams, but hardly ever for all.
    const int list_pages_max = std::max(1, std::ranges::max(batch.lists, {}, &PageList::count).count);
    const DeviceArray<std::byte> scratch(decode_scratch_bytes(batch.shape, list_pages_max, 3));

    if (decode_count > 0) {
        schedule_decode(
            {batch.shape, first_of(items.span(), decode_count), first_of(lists.span(), decode_count * kv_heads),
             entries.span(), units.span(), blocks.span(), cost_before.span(), DecodeHostBatch::kKvLayer},
            nullptr);
    }
    if (batch.chunk_count > 0) {
        PrefillBatch chunks = batch.chunks(multiprocessor_count);
        chunks.items = last_of(items.span(), chunks.items.size);
        chunks.lists = last_of(lists.span(), chunks.lists.size);
        chunks.entries = entries.span();
        schedule_prefill({chunks, chunk_blocks.span(), chunk_streams.span()}, nullptr);
    }
    const Decode call{
        .shape = batch.shape,
        .dtype = work.dtype,
        .kv_dtype = kv_dtype,
        .scale = work.scale,
        .soft_cap = work.soft_cap,
        .row_count = work.row_count,
        .slab = {pages.span().data, DevicePageLayout::of(work.heads.head_dim, work.dtype, kv_dtype).page_bytes()},
        .items = items.span(),
        .lists = lists.span(),
        .entries = entries.span(),
        .kv_layer = DecodeHostBatch::kKvLayer,
        .units = units.span(),
        .blocks = blocks.span(),
        .chunk_count = batch.chunk_count,
        .chunk_blocks = chunk_blocks.span(),
        .q = q.span(),
        .rounded = rounded.span(),
        .partial = partial.span(),
        .lse = lse.span(),
        .workspace = workspace.span(),
        .scratch = scratch.span(),
        .list_pages_max = list_pages_max};
    const DecodePath path = decode(call, nullptr);
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");

    int covered_rows = 0;
    for (const DecodeItem& item : batch.items) covered_rows += item.query_count;
    std::vector<std::byte> joined = decode_with_twin(call, false), joined_heads;
    if (covered_rows == work.row_count) joined_heads = decode_with_twin(call, true);  // all of them are waited for

    std::ranges::copy(partial.download(), work.partial.begin());
    std::ranges::copy(lse.download(), work.lse.begin());
    std::vector<float> slots = workspace.download();
    const std::size_t decode_slots =
        cut.units.gives_units_blocks()
            ? 0
            : 2 * block_count * decode_slot_floats(batch.shape.unit_rows(), work.heads.head_dim);
    // What blocks of decodes keep for themselves may stay.
    slots.erase(slots.begin() + decode_slots / 2, slots.begin() + decode_slots);
    return {.path = path,
            .chunk_path = chunk_path_of(batch.shape, work.dtype),
            .rounded = rounded.download(),
            .workspace_is_empty = is_all_ones(slots),
            .block_count = block_count,
            .multiprocessor_count = multiprocessor_count,
            .schedule = decode_count > 0 ? DecodeSchedule{units.download(), blocks.download()} : DecodeSchedule{},
            .chunks = chunk_blocks.download(),
            .joined = std::move(joined),
            .joined_heads = std::move(joined_heads)};
}

}  // namespace kvgrid::kernels
