#include "kernels/cuda/decode.h"

#include <cuda_runtime_api.h>

#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/device_page_layout.h"

namespace kvgrid::kernels {

namespace {

using LaunchDecode = void (*)(const DecodeArguments& arguments, Stream stream);

struct Variant {
    Dtype dtype;
    int head_dim;
    int unit_rows;
    LaunchDecode launch;
};

// The kernels that exist. Whatever else is asked for goes the general way.
constexpr Variant kVariants[] = {
    {Dtype::bf16, 64, 8, launch_decode<64, Bf16, 8>},     {Dtype::bf16, 64, 16, launch_decode<64, Bf16, 16>},
    {Dtype::bf16, 64, 32, launch_decode<64, Bf16, 32>},   {Dtype::f16, 64, 8, launch_decode<64, F16, 8>},
    {Dtype::f16, 64, 16, launch_decode<64, F16, 16>},     {Dtype::f16, 64, 32, launch_decode<64, F16, 32>},
    {Dtype::bf16, 96, 8, launch_decode<96, Bf16, 8>},     {Dtype::bf16, 96, 16, launch_decode<96, Bf16, 16>},
    {Dtype::bf16, 96, 32, launch_decode<96, Bf16, 32>},   {Dtype::f16, 96, 8, launch_decode<96, F16, 8>},
    {Dtype::f16, 96, 16, launch_decode<96, F16, 16>},     {Dtype::f16, 96, 32, launch_decode<96, F16, 32>},
    {Dtype::bf16, 128, 8, launch_decode<128, Bf16, 8>},   {Dtype::bf16, 128, 16, launch_decode<128, Bf16, 16>},
    {Dtype::bf16, 128, 32, launch_decode<128, Bf16, 32>}, {Dtype::f16, 128, 8, launch_decode<128, F16, 8>},
    {Dtype::f16, 128, 16, launch_decode<128, F16, 16>},   {Dtype::f16, 128, 32, launch_decode<128, F16, 32>},
    {Dtype::bf16, 256, 8, launch_decode<256, Bf16, 8>},   {Dtype::bf16, 256, 16, launch_decode<256, Bf16, 16>},
    {Dtype::f16, 256, 8, launch_decode<256, F16, 8>},     {Dtype::f16, 256, 16, launch_decode<256, F16, 16>},
};

const Variant* find_variant(const DecodeShape& shape, Dtype dtype) {
    if (shape.query_count_max > kDecodeQueriesMax) return nullptr;
    for (const Variant& variant : kVariants) {
        if (variant.dtype == dtype && variant.head_dim == shape.heads.head_dim &&
            variant.unit_rows == shape.unit_rows()) {
            return &variant;
        }
    }
    return nullptr;
}

constexpr int kChunkHeadDim = 128;

void require(bool kept, const std::string& rule) {
    if (!kept) throw std::invalid_argument("decode: " + rule);
}

void check_numbers(const Decode& work) {
    const HeadShape& heads = work.shape.heads;
    require(heads.kv_heads >= 1 && heads.query_heads >= heads.kv_heads && heads.query_heads % heads.kv_heads == 0,
            "query_heads must be a positive multiple of kv_heads");
    require(heads.head_dim >= 32 && heads.head_dim <= 256 && heads.head_dim % 8 == 0,
            "head_dim is " + std::to_string(heads.head_dim) + ", must be a multiple of 8 from 32 to 256");
    require(work.dtype == Dtype::f16 || work.dtype == Dtype::bf16,
            std::string("dtype is ") + name_of(work.dtype) + ", must be f16 or bf16");
    require(std::isfinite(work.scale) && work.scale > 0, "scale must be finite and positive");
    require(std::isfinite(work.soft_cap) && work.soft_cap >= 0, "soft_cap must be finite and not negative");
    require(work.shape.query_count_max >= 1, "query_count_max must be positive");
    require(work.row_count >= 0, "row_count must not be negative");
    require(work.kv_layer >= 0, "kv_layer must not be negative");
}

void check_memory(const Decode& work) {
    const HeadShape& heads = work.shape.heads;
    const DevicePageLayout layout{heads.head_dim * static_cast<int>(byte_size(work.dtype))};
    require(work.slab.page_bytes >= layout.page_bytes() && work.slab.page_bytes % 128 == 0,
            "page_bytes must hold the K and the V block, and be a multiple of 128");
    require(work.entries.size == 0 || work.slab.base != nullptr, "the slab is null");
    require(reinterpret_cast<std::uintptr_t>(work.slab.base) % 128 == 0, "the slab must be aligned to 128 bytes");
    require(work.lists.size == work.items.size * heads.kv_heads, "there must be kv_heads lists for each item");

    const std::size_t rows = static_cast<std::size_t>(work.row_count) * heads.query_heads;
    const std::size_t elements = rows * heads.head_dim, bytes = elements * byte_size(work.dtype);
    require(work.q.size == bytes, "q must be [row_count, query_heads, head_dim]");
    require(work.rounded.size == bytes || work.rounded.size == 0, "rounded must be [row_count, query_heads, head_dim]");
    require(work.partial.size == elements || work.partial.size == 0,
            "partial must be [row_count, query_heads, head_dim]");
    require(work.lse.size == rows || work.lse.size == 0, "lse must be [row_count, query_heads]");
    for (const void* pointer :
         {static_cast<const void*>(work.q.data), static_cast<const void*>(work.rounded.data),
          static_cast<const void*>(work.partial.data), static_cast<const void*>(work.workspace.data)}) {
        require(reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0,
                "q, outputs and workspace must be aligned to 16 bytes");
    }
}

void check_schedule(const Decode& work) {
    require(work.units.size == work.lists.size * work.shape.units_per_stream(), "the schedule has other units");
    require(work.blocks.size >= 1, "the schedule has no blocks");
    require(work.workspace.size >= decode_workspace_floats(work.shape, static_cast<int>(work.blocks.size)),
            "the workspace is smaller than decode_workspace_floats");
}

template <class T>
T* or_null(const DeviceSpan<T>& span) {
    return span.size == 0 ? nullptr : span.data;
}

DecodeArguments arguments_of(const Decode& work) {
    const bool is_capped = work.soft_cap > 0;
    return {.slab = work.slab.base,
            .page_bytes = work.slab.page_bytes,
            .entries = work.entries.data,
            .units = work.units.data,
            .blocks = work.blocks.data,
            .block_count = static_cast<int>(work.blocks.size),
            .kv_layer = work.kv_layer,
            .q = work.q.data,
            .outputs = {or_null(work.rounded), or_null(work.partial), or_null(work.lse)},
            .slots = work.workspace.data,
            .query_heads = work.shape.heads.query_heads,
            .group = work.shape.heads.group(),
            .strictly_earlier = work.shape.strictly_earlier,
            .scale_log2 = work.scale * std::numbers::log2e_v<float>,
            .cap_inner = is_capped ? work.scale / work.soft_cap : 0,
            .cap_outer = is_capped ? work.soft_cap / work.scale : 0};
}

}  // namespace

const char* name_of(DecodePath path) {
    switch (path) {
        case DecodePath::one_pass:
            return "one pass";
        case DecodePath::several_passes:
            return "several passes";
        case DecodePath::chunks:
            return "chunks";
        case DecodePath::general:
            return "general";
    }
    return "unknown";
}

DecodePath path_of(const DecodeShape& shape, Dtype dtype) {
    if (find_variant(shape, dtype) == nullptr) {
        const bool is_chunk = shape.query_count_max > kDecodeQueriesMax && shape.heads.head_dim == kChunkHeadDim;
        return is_chunk ? DecodePath::chunks : DecodePath::general;
    }
    return shape.units_per_stream() == 1 ? DecodePath::one_pass : DecodePath::several_passes;
}

std::size_t decode_workspace_floats(const DecodeShape& shape, int block_count) {
    // One slot to hand over and one to keep for each block.
    return std::size_t{2} * block_count * decode_slot_floats(shape.unit_rows(), shape.heads.head_dim);
}

void reset_decode_workspace(DeviceSpan<float> workspace, Stream stream) {
    check_cuda(cudaMemsetAsync(workspace.data, 0xff, workspace.size * sizeof(float), stream), "cudaMemsetAsync");
}

DecodePath decode(const Decode& work, Stream stream) {
    check_numbers(work);
    check_memory(work);
    const DecodePath path = work.only_general ? DecodePath::general : path_of(work.shape, work.dtype);
    if (work.items.size == 0 || work.row_count == 0) return path;
    const GeneralDecode unscheduled{.shape = work.shape,
                                    .is_f16 = work.dtype == Dtype::f16,
                                    .arguments = arguments_of(work),
                                    .items = work.items.data,
                                    .lists = work.lists.data,
                                    .item_count = static_cast<int>(work.items.size)};
    if (path == DecodePath::general) {
        launch_decode_general(unscheduled, stream);
        return path;
    }
    if (path == DecodePath::chunks) {
        (unscheduled.is_f16 ? launch_prefill<F16> : launch_prefill<Bf16>)(unscheduled, stream);
        return path;
    }
    check_schedule(work);
    find_variant(work.shape, work.dtype)->launch(unscheduled.arguments, stream);
    return path;
}

}  // namespace kvgrid::kernels
