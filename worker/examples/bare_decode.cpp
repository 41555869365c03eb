#include "worker/examples/bare_decode.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device.h"

namespace kvgrid {

using namespace kernels;

BareDecode::BareDecode(const ModelSpec& spec, int tokens, Stream stream) {
    const HeadShape heads{spec.query_heads, spec.kv_heads, spec.head_dim};
    const int page_count = (tokens + kPageTokens - 1) / kPageTokens;
    std::vector<PageList> lists;
    std::vector<PageEntry> entries;
    for (int head = 0; head < spec.kv_heads; ++head) {
        lists.push_back({static_cast<std::int32_t>(entries.size()), page_count});
        for (int page = 0; page < page_count; ++page) {
            const int first = page * kPageTokens, count = std::min<int>(kPageTokens, tokens - first);
            entries.push_back({static_cast<std::uint32_t>(entries.size()), static_cast<std::uint32_t>(count), first});
        }
    }
    const DecodeItem item{tokens - 1, 0, 0, 1, 0};
    items_ = DeviceArray<DecodeItem>(std::span(&item, 1));
    lists_ = DeviceArray<PageList>(std::span<const PageList>(lists));
    entries_ = DeviceArray<PageEntry>(std::span<const PageEntry>(entries));

    DecodeShape shape{heads, 1};
    const int multiprocessors = current_device().multiprocessor_count;
    const auto units = static_cast<std::size_t>(spec.kv_heads * shape.units_per_stream());
    shape.cut = best_cut_of(shape, {.unit_count = static_cast<std::int64_t>(units),
                                    .page_count = static_cast<std::int64_t>(entries.size()) * shape.units_per_stream(),
                                    .pages_max = page_count,
                                    .page_bytes = spec.page_bytes(),
                                    .multiprocessor_count = multiprocessors});
    units_ = DeviceArray<DecodeUnit>(units);
    blocks_ = DeviceArray<DecodeBlock>(block_count_of(shape.cut, static_cast<std::int64_t>(units), multiprocessors));
    const auto block_count = static_cast<int>(blocks_.span().size);

    pages_ = DeviceBytes(entries.size() * spec.page_bytes());
    const std::size_t q = spec.row_bytes() * spec.query_heads;
    tensors_ = DeviceBytes(2 * q);
    const std::size_t floats = decode_workspace_floats(shape, block_count);
    workspace_ = DeviceBytes(floats * sizeof(float));
    const DeviceSpan<float> workspace{reinterpret_cast<float*>(workspace_.data()), floats};
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // uploads are on another stream
    check_cuda(cudaMemsetAsync(pages_.data(), 0, pages_.size(), stream), "cudaMemsetAsync of pages");
    check_cuda(cudaMemsetAsync(tensors_.data(), 0, tensors_.size(), stream), "cudaMemsetAsync of q");
    if (floats > 0) reset_decode_workspace(workspace, stream);
    const DeviceArray<std::int32_t> cost_before(units + 1);
    schedule_decode({.shape = shape,
                     .items = items_.span(),
                     .lists = lists_.span(),
                     .entries = entries_.span(),
                     .units = units_.span(),
                     .blocks = blocks_.span(),
                     .cost_before = cost_before.span()},
                    stream);
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    work_ = {.shape = shape,
             .dtype = spec.dtype,
             .scale = static_cast<float>(spec.scale),
             .row_count = 1,
             .slab = {pages_.data(), spec.page_bytes()},
             .items = items_.span(),
             .lists = lists_.span(),
             .entries = entries_.span(),
             .units = units_.span(),
             .blocks = blocks_.span(),
             .q = {tensors_.data(), q},
             .rounded = {tensors_.data() + q, q},
             .partial = {},
             .lse = {},
             .workspace = workspace};
}

void BareDecode::queue(Stream stream) const {
    decode(work_, stream);
}

}  // namespace kvgrid
