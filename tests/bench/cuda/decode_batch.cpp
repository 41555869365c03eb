#include "tests/bench/cuda/decode_batch.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/cuda/device.h"
#include "kernels/cuda/device_page_layout.h"
#include "tests/bench/cuda/device_tools.h"

namespace kvgrid::bench {

using namespace kernels;

namespace {

struct Lists {
    std::vector<DecodeItem> items;
    std::vector<PageList> lists;
    std::vector<PageEntry> entries;
};

Lists make_lists(const DecodeCase& shape) {
    Lists made;
    for (std::size_t item = 0; item < shape.lengths.size(); ++item) {
        const int length = shape.lengths[item], row = static_cast<int>(item) * shape.query_count;
        made.items.push_back({length - shape.query_count, 0, 0, shape.query_count, row});
        for (int head = 0; head < shape.kv_heads; ++head) {
            const int first = static_cast<int>(made.entries.size());
            for (int token = 0; token < length; token += kPageTokens) {
                const int count = std::min<int>(kPageTokens, length - token);
                made.entries.push_back({0, static_cast<std::uint32_t>(count), token});
            }
            made.lists.push_back({first, static_cast<int>(made.entries.size()) - first});
        }
    }
    std::vector<std::uint32_t> pages(made.entries.size());
    std::iota(pages.begin(), pages.end(), 0u);
    std::mt19937_64 random(5);
    std::shuffle(pages.begin(), pages.end(), random);
    for (std::size_t index = 0; index < pages.size(); ++index) made.entries[index].page = pages[index];
    return made;
}

}  // namespace

DecodeOnDevice::DecodeOnDevice(const DecodeCase& shape)
    : shape_{{shape.query_heads, shape.kv_heads, shape.head_dim}, shape.query_count},
      dtype_(shape.dtype),
      row_count_(static_cast<int>(shape.lengths.size()) * shape.query_count),
      page_bytes_(DevicePageLayout{2 * shape.head_dim}.page_bytes()) {
    const Lists made = make_lists(shape);
    for (int length : shape.lengths) kv_bytes_ += 4.0 * length * shape.kv_heads * shape.head_dim;
    const std::size_t rows = static_cast<std::size_t>(row_count_) * shape.query_heads;
    const std::size_t unit_count = made.lists.size() * shape_.units_per_stream();
    const int block_count = current_device().multiprocessor_count;

    slab_ = DeviceArray<std::byte>(made.entries.size() * page_bytes_);
    fill_with_normal(slab_.span(), dtype_, 11);
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
    schedule_decode(schedule(), nullptr);
}

ScheduleDecode DecodeOnDevice::schedule() const {
    return {shape_, items_.span(), lists_.span(), entries_.span(), units_.span(), blocks_.span(), cost_before_.span()};
}

Decode DecodeOnDevice::work() const {
    return {.shape = shape_,
            .dtype = dtype_,
            .scale = 1 / std::sqrt(static_cast<float>(shape_.heads.head_dim)),
            .row_count = row_count_,
            .slab = {slab_.span().data, page_bytes_},
            .items = items_.span(),
            .lists = lists_.span(),
            .entries = entries_.span(),
            .units = units_.span(),
            .blocks = blocks_.span(),
            .q = q_.span(),
            .rounded = rounded_.span(),
            .partial = {},
            .lse = {},
            .workspace = workspace_.span()};
}

double DecodeOnDevice::difference_from_general() const {
    // A block of the general way reads a whole stream.
    constexpr double kBytesMax = 1e9;
    if (kv_bytes_ * shape_.rows_max() > kBytesMax) return -1;
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
