#include "tests/bench/cuda/decode_batch.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/fp8_pages.h"
#include "tests/bench/cuda/device_tools.h"

namespace kvgrid::bench {

using namespace kernels;

struct DecodeOnDevice::Lists {
    std::vector<DecodeItem> items;
    std::vector<PageList> lists;
    std::vector<PageEntry> entries;

    explicit Lists(const DecodeCase& shape);
};

namespace {

template <class Lists>
void add_item(Lists& made, const DecodeCase& shape, int length, int query_count, int first_row) {
    made.items.push_back({length - query_count, 0, 0, query_count, first_row});
    for (int head = 0; head < shape.kv_heads; ++head) {
        const int first = static_cast<int>(made.entries.size());
        for (int token = 0; token < length; token += kPageTokens) {
            const int count = std::min<int>(kPageTokens, length - token);
            made.entries.push_back({0, static_cast<std::uint32_t>(count), token});
        }
        made.lists.push_back({first, static_cast<int>(made.entries.size()) - first});
    }
}

}  // namespace

DecodeOnDevice::Lists::Lists(const DecodeCase& shape) {
    int row = 0;
    for (int length : shape.lengths) {
        add_item(*this, shape, length, shape.query_count, row);
        row += shape.query_count;
    }
    for (int length : shape.chunk_lengths) {
        add_item(*this, shape, length, shape.chunk_query_count, row);
        row += shape.chunk_query_count;
    }
    std::vector<std::uint32_t> pages(entries.size());
    std::iota(pages.begin(), pages.end(), 0u);
    std::mt19937_64 random(5);
    std::shuffle(pages.begin(), pages.end(), random);
    for (std::size_t index = 0; index < pages.size(); ++index) entries[index].page = pages[index];
}

DecodeOnDevice::DecodeOnDevice(const DecodeCase& shape)
    : shape_{.heads = {shape.query_heads, shape.kv_heads, shape.head_dim},
             .query_count_max = shape.query_count,
             .chunk_query_count_max = shape.chunk_query_count},
      dtype_(shape.dtype),
      kv_dtype_(shape.kv_dtype),
      decode_count_(static_cast<int>(shape.lengths.size())),
      chunk_count_(static_cast<int>(shape.chunk_lengths.size())),
      row_count_(decode_count_ * shape.query_count + chunk_count_ * shape.chunk_query_count),
      page_bytes_(DevicePageLayout::of(shape.head_dim, shape.dtype, shape.kv_dtype).page_bytes()) {
    const Lists made(shape);
    const double token_bytes = (shape.kv_dtype == KvDtype::fp8_e4m3 ? 2.0 : 4.0) * shape.kv_heads * shape.head_dim;
    for (int length : shape.lengths) kv_bytes_ += token_bytes * length;
    for (int length : shape.chunk_lengths) kv_bytes_ += token_bytes * length;
    const std::size_t rows = static_cast<std::size_t>(row_count_) * shape.query_heads;
    const std::size_t unit_count = std::size_t{1} * decode_count_ * shape.kv_heads * shape_.units_per_stream();
    const int multiprocessors = current_device().multiprocessor_count;
    shape_.cut = shape.cut ? *shape.cut : best_cut(made, unit_count, multiprocessors);
    const auto block_count = static_cast<int>(block_count_of(shape_.cut, unit_count, multiprocessors));

    fill_pages(made.entries.size());
    q_ = DeviceArray<std::byte>(rows * shape.head_dim * 2);
    fill_with_normal(q_.span(), dtype_, 12);
    rounded_ = DeviceArray<std::byte>(q_.span().size);
    items_ = DeviceArray<DecodeItem>(std::span<const DecodeItem>(made.items));
    lists_ = DeviceArray<PageList>(std::span<const PageList>(made.lists));
    entries_ = DeviceArray<PageEntry>(std::span<const PageEntry>(made.entries));
    units_ = DeviceArray<DecodeUnit>(unit_count);
    blocks_ = DeviceArray<DecodeBlock>(block_count);
    cost_before_ = DeviceArray<std::int32_t>(unit_count + 1);
    partial_ = DeviceArray<float>(rows * shape.head_dim);
    lse_ = DeviceArray<float>(rows);
    workspace_ = DeviceArray<float>(decode_workspace_floats(shape_, block_count));
    reset_decode_workspace(workspace_.span(), nullptr);
    if (decode_count_ > 0) schedule_decode(schedule(), nullptr);
    if (chunk_count_ == 0) return;
    chunk_blocks_ = DeviceArray<PrefillBlock>(prefill_block_count(shape_, chunk_count_));
    chunk_streams_ = DeviceArray<PrefillStream>(chunk_count_ * shape.kv_heads + 1);
    schedule_prefill(chunk_schedule(), nullptr);
    if (kv_dtype_ == KvDtype::as_model) return;
    list_pages_max_ = std::ranges::max(made.lists, {}, &PageList::count).count;
    constexpr int kStreamsMax = 8;
    const int stream_count = std::min(kStreamsMax, chunk_count_ * shape.kv_heads);
    scratch_ = DeviceArray<std::byte>(decode_scratch_bytes(shape_, list_pages_max_, stream_count));
}

UnitCut DecodeOnDevice::best_cut(const Lists& lists, std::size_t unit_count, int multiprocessor_count) const {
    DecodeLoad load{static_cast<std::int64_t>(unit_count), 0, 0, page_bytes_, multiprocessor_count};
    const std::size_t list_count = static_cast<std::size_t>(decode_count_) * shape_.heads.kv_heads;
    for (const PageList& list : std::span(lists.lists).first(list_count)) {
        load.pages_max = std::max(load.pages_max, list.count);
        load.page_count += std::int64_t{list.count} * shape_.units_per_stream();
    }
    return best_cut_of(shape_, load);
}

void DecodeOnDevice::fill_pages(std::size_t page_count) {
    slab_ = DeviceArray<std::byte>(page_count * page_bytes_);
    if (kv_dtype_ == KvDtype::as_model) {
        fill_with_normal(slab_.span(), dtype_, 11);
        return;
    }
    // Tokens out of a few thousand rows, of which each page takes others.
    constexpr int kRows = 8192;
    const DeviceArray<std::byte> k(std::size_t{2} * kRows * shape_.heads.head_dim), v(k.span().size);
    fill_with_normal(k.span(), dtype_, 13);
    fill_with_normal(v.span(), dtype_, 14);
    std::vector<PageRun> list;
    for (std::size_t page = 0; page < page_count; ++page) {
        const int row = static_cast<int>(page * 37 % (kRows - kPageTokens));
        list.push_back({static_cast<std::uint32_t>(page), 0, kPageTokens, row, 0});
    }
    const DeviceArray<PageRun> runs{std::span<const PageRun>(list)};
    append_fp8_on_device(
        {1, shape_.heads.head_dim, dtype_, kRows, {slab_.span().data, page_bytes_}, runs.span(), k.span(), v.span()},
        nullptr);
    check_cuda(cudaDeviceSynchronize(), "append_fp8_on_device");
}

ScheduleDecode DecodeOnDevice::schedule() const {
    const std::size_t count = decode_count_;
    return {.shape = shape_,
            .items = {items_.span().data, count},
            .lists = {lists_.span().data, count * shape_.heads.kv_heads},
            .entries = entries_.span(),
            .units = units_.span(),
            .blocks = blocks_.span(),
            .cost_before = cost_before_.span()};
}

SchedulePrefill DecodeOnDevice::chunk_schedule() const {
    const std::size_t count = chunk_count_, decodes = decode_count_;
    return {.batch = {.shape = shape_,
                      .items = {items_.span().data + decodes, count},
                      .lists = {lists_.span().data + decodes * shape_.heads.kv_heads, count * shape_.heads.kv_heads},
                      .entries = entries_.span(),
                      .multiprocessor_count = current_device().multiprocessor_count},
            .blocks = chunk_blocks_.span(),
            .streams = chunk_streams_.span()};
}

Decode DecodeOnDevice::work() const {
    return {.shape = shape_,
            .dtype = dtype_,
            .kv_dtype = kv_dtype_,
            .scale = 1 / std::sqrt(static_cast<float>(shape_.heads.head_dim)),
            .row_count = row_count_,
            .slab = {slab_.span().data, page_bytes_},
            .items = items_.span(),
            .lists = lists_.span(),
            .entries = entries_.span(),
            .units = units_.span(),
            .blocks = blocks_.span(),
            .chunk_count = chunk_count_,
            .chunk_blocks = chunk_blocks_.span(),
            .q = q_.span(),
            .rounded = rounded_.span(),
            .partial = {},
            .lse = {},
            .workspace = workspace_.span(),
            .scratch = scratch_.span(),
            .list_pages_max = list_pages_max_};
}

double DecodeOnDevice::difference_from_general() const {
    // A block of the general way reads a whole stream.
    constexpr double kBytesMax = 1e9;
    const int queries_max = std::max(decode_count_ > 0 ? shape_.query_count_max : 0, shape_.chunk_query_count_max);
    if (kv_bytes_ * queries_max * shape_.heads.group() > kBytesMax) return -1;
    Decode fast = work();
    const DeviceArray<float> expected(partial_.span().size);
    fast.partial = partial_.span();
    decode(fast, nullptr);
    Decode general = fast;
    general.only_general = true;
    general.partial = expected.span();
    decode(general, nullptr);
    return relative_difference(fast.partial, expected.span());
}

}  // namespace kvgrid::bench
