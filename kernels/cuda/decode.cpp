#include "kernels/cuda/decode.h"

#include <cuda_runtime_api.h>

#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/fp8_chunks.h"
#include "kernels/cuda/prefill_launch.h"

namespace kvgrid::kernels {

namespace {

using LaunchDecode = void (*)(const DecodeArguments& arguments, Stream stream);

struct Variant {
    Dtype dtype;
    KvDtype kv_dtype;
    int head_dim;
    int unit_rows;
    LaunchDecode launch;
};

// The kernels that exist. Whatever else is asked for goes the general way.
constexpr Variant kVariants[] = {
    {Dtype::bf16, KvDtype::as_model, 64, 8, launch_decode<64, Bf16, 8, PlainKv<Bf16>>},
    {Dtype::bf16, KvDtype::as_model, 64, 16, launch_decode<64, Bf16, 16, PlainKv<Bf16>>},
    {Dtype::bf16, KvDtype::as_model, 64, 32, launch_decode<64, Bf16, 32, PlainKv<Bf16>>},
    {Dtype::f16, KvDtype::as_model, 64, 8, launch_decode<64, F16, 8, PlainKv<F16>>},
    {Dtype::f16, KvDtype::as_model, 64, 16, launch_decode<64, F16, 16, PlainKv<F16>>},
    {Dtype::f16, KvDtype::as_model, 64, 32, launch_decode<64, F16, 32, PlainKv<F16>>},
    {Dtype::bf16, KvDtype::as_model, 96, 8, launch_decode<96, Bf16, 8, PlainKv<Bf16>>},
    {Dtype::bf16, KvDtype::as_model, 96, 16, launch_decode<96, Bf16, 16, PlainKv<Bf16>>},
    {Dtype::bf16, KvDtype::as_model, 96, 32, launch_decode<96, Bf16, 32, PlainKv<Bf16>>},
    {Dtype::f16, KvDtype::as_model, 96, 8, launch_decode<96, F16, 8, PlainKv<F16>>},
    {Dtype::f16, KvDtype::as_model, 96, 16, launch_decode<96, F16, 16, PlainKv<F16>>},
    {Dtype::f16, KvDtype::as_model, 96, 32, launch_decode<96, F16, 32, PlainKv<F16>>},
    {Dtype::bf16, KvDtype::as_model, 128, 8, launch_decode<128, Bf16, 8, PlainKv<Bf16>>},
    {Dtype::bf16, KvDtype::as_model, 128, 16, launch_decode<128, Bf16, 16, PlainKv<Bf16>>},
    {Dtype::bf16, KvDtype::as_model, 128, 32, launch_decode<128, Bf16, 32, PlainKv<Bf16>>},
    {Dtype::f16, KvDtype::as_model, 128, 8, launch_decode<128, F16, 8, PlainKv<F16>>},
    {Dtype::f16, KvDtype::as_model, 128, 16, launch_decode<128, F16, 16, PlainKv<F16>>},
    {Dtype::f16, KvDtype::as_model, 128, 32, launch_decode<128, F16, 32, PlainKv<F16>>},
    {Dtype::bf16, KvDtype::as_model, 256, 8, launch_decode<256, Bf16, 8, PlainKv<Bf16>>},
    {Dtype::bf16, KvDtype::as_model, 256, 16, launch_decode<256, Bf16, 16, PlainKv<Bf16>>},
    {Dtype::f16, KvDtype::as_model, 256, 8, launch_decode<256, F16, 8, PlainKv<F16>>},
    {Dtype::f16, KvDtype::as_model, 256, 16, launch_decode<256, F16, 16, PlainKv<F16>>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 64, 8, launch_decode<64, Bf16, 8, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 64, 16, launch_decode<64, Bf16, 16, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 64, 32, launch_decode<64, Bf16, 32, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 64, 8, launch_decode<64, F16, 8, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 64, 16, launch_decode<64, F16, 16, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 64, 32, launch_decode<64, F16, 32, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 96, 8, launch_decode<96, Bf16, 8, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 96, 16, launch_decode<96, Bf16, 16, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 96, 32, launch_decode<96, Bf16, 32, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 96, 8, launch_decode<96, F16, 8, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 96, 16, launch_decode<96, F16, 16, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 96, 32, launch_decode<96, F16, 32, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 128, 8, launch_decode<128, Bf16, 8, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 128, 16, launch_decode<128, Bf16, 16, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 128, 32, launch_decode<128, Bf16, 32, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 128, 8, launch_decode<128, F16, 8, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 128, 16, launch_decode<128, F16, 16, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 128, 32, launch_decode<128, F16, 32, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 256, 8, launch_decode<256, Bf16, 8, Fp8Kv>},
    {Dtype::bf16, KvDtype::fp8_e4m3, 256, 16, launch_decode<256, Bf16, 16, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 256, 8, launch_decode<256, F16, 8, Fp8Kv>},
    {Dtype::f16, KvDtype::fp8_e4m3, 256, 16, launch_decode<256, F16, 16, Fp8Kv>},
};

const Variant* find_variant(const DecodeShape& shape, Dtype dtype, KvDtype kv_dtype) {
    if (shape.query_count_max > kDecodeQueriesMax) return nullptr;
    for (const Variant& variant : kVariants) {
        if (variant.dtype == dtype && variant.kv_dtype == kv_dtype && variant.head_dim == shape.heads.head_dim &&
            variant.unit_rows == shape.unit_rows()) {
            return &variant;
        }
    }
    return nullptr;
}

using LaunchPrefill = void (*)(const PrefillWork& work, Stream stream);

struct ChunkVariant {
    Dtype dtype;
    int head_dim;
    LaunchPrefill launch;
};
constexpr ChunkVariant kChunkVariants[] = {
    {Dtype::bf16, 64, launch_prefill<64, Bf16>},   {Dtype::f16, 64, launch_prefill<64, F16>},
    {Dtype::bf16, 96, launch_prefill<96, Bf16>},   {Dtype::f16, 96, launch_prefill<96, F16>},
    {Dtype::bf16, 128, launch_prefill<128, Bf16>}, {Dtype::f16, 128, launch_prefill<128, F16>},
    {Dtype::bf16, 256, launch_prefill<256, Bf16>}, {Dtype::f16, 256, launch_prefill<256, F16>},
};

const ChunkVariant* find_chunk_variant(const DecodeShape& shape, Dtype dtype, KvDtype kv_dtype) {
    // Elements of fp8 pages are bf16 numbers, but not always f16 numbers.
    if (kv_dtype == KvDtype::fp8_e4m3 && dtype != Dtype::bf16) return nullptr;
    for (const ChunkVariant& variant : kChunkVariants) {
        if (variant.dtype == dtype && variant.head_dim == shape.heads.head_dim) return &variant;
    }
    return nullptr;
}

void require(bool kept, const std::string& rule) {
    if (!kept) throw std::invalid_argument("decode: " + rule);
}

void check_numbers(const Decode& work) {
    const HeadShape& heads = work.shape.heads;
    require(heads.kv_heads >= 1 && heads.query_heads >= heads.kv_heads && heads.query_heads % heads.kv_heads == 0,
            "query_heads must be a positive multiple of kv_heads");
    require(heads.head_dim >= 32 && heads.head_dim <= 256 && heads.head_dim % 8 == 0,
            "head_dim is " + std::to_string(heads.head_dim) + ", must be a multiple of 8 from 32 to 256");
    require(work.dtype != Dtype::f32 || work.kv_dtype == KvDtype::as_model,
            "dtype is f32, must be f16 or bf16 over fp8");
    require(std::isfinite(work.scale) && work.scale > 0, "scale must be finite and positive");
    require(std::isfinite(work.soft_cap) && work.soft_cap >= 0, "soft_cap must be finite and not negative");
    require(work.shape.query_count_max >= 1, "query_count_max must be positive");
    require(work.chunk_count >= 0 && static_cast<std::size_t>(work.chunk_count) <= work.items.size,
            "chunk_count must not exceed the items");
    require(work.chunk_count == 0 || work.shape.chunk_query_count_max >= 1, "chunk_query_count_max must be positive");
    require(work.row_count >= 0, "row_count must not be negative");
    require(work.kv_layer >= 0, "kv_layer must not be negative");
}

void check_memory(const Decode& work) {
    const HeadShape& heads = work.shape.heads;
    const DevicePageLayout layout = DevicePageLayout::of(heads.head_dim, work.dtype, work.kv_dtype);
    require(work.slab.page_bytes >= layout.page_bytes() && work.slab.page_bytes % 128 == 0,
            "page_bytes must hold a page, and be a multiple of 128");
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

// Items that are no chunks.
std::size_t decode_count(const Decode& work) {
    return work.items.size - work.chunk_count;
}

// One slot to hand over and one to keep for each block; none where no block has another's unit.
std::size_t decode_slots_floats(const DecodeShape& shape, int block_count) {
    if (shape.cut.gives_units_blocks()) return 0;
    return std::size_t{2} * block_count * decode_slot_floats(shape.unit_rows(), shape.heads.head_dim);
}

void check_join(const Decode& work) {
    require(can_join(work.shape, work.dtype, work.kv_dtype) && work.chunk_count == 0 && !work.only_general,
            "these rows cannot be joined in the tail");
    const PeerExchange& join = *work.join;
    check_exchange(join);
    require(work.rounded.size == 0, "rows that are joined have no other output");
    require(join.rank != join.root || join.sequence_parts == 1 || (work.partial.size > 0 && work.lse.size > 0),
            "the root of a join wants partial and lse as scratch");
    const int part = join.rank / join.sequence_parts;
    require(join.token_count == work.row_count && join.head_dim == work.shape.heads.head_dim &&
                join.first_heads[part + 1] - join.first_heads[part] == work.shape.heads.query_heads,
            "the exchange is of other rows");
}

void check_schedule(const Decode& work) {
    const std::size_t stream_count = decode_count(work) * work.shape.heads.kv_heads;
    require(work.units.size == stream_count * work.shape.units_per_stream(), "the schedule has other units");
    require(work.blocks.size >= 1, "the schedule has no blocks");
    require(work.workspace.size >= decode_workspace_floats(work.shape, static_cast<int>(work.blocks.size)),
            "the workspace is smaller than decode_workspace_floats");
    const UnitCut& cut = work.shape.cut;
    require(cut.is_sound(), "a unit must have 1 to 8 blocks in a cluster, or 1 small block");
    if (!cut.gives_units_blocks()) return;
    require(work.blocks.size == work.units.size * cut.parts, "the schedule has other blocks of units");
    require(work.shape.unit_rows() <= kRowsMaxOfOwnBlocks, "units of so many rows have no blocks of their own");
}

void check_chunk_memory(const Decode& work) {
    require(work.workspace.size >= decode_workspace_floats(work.shape, static_cast<int>(work.blocks.size)),
            "the workspace is smaller than decode_workspace_floats");
    if (work.kv_dtype == KvDtype::fp8_e4m3) {
        require(work.list_pages_max >= 1, "list_pages_max must be positive");
        require(work.scratch.size >= decode_scratch_bytes(work.shape, work.list_pages_max, 1),
                "the scratch is smaller than decode_scratch_bytes of one stream");
        require(reinterpret_cast<std::uintptr_t>(work.scratch.data) % 128 == 0,
                "the scratch must be aligned to 128 bytes");
        return;
    }
    const int block_count = prefill_block_count(work.shape, work.chunk_count);
    require(work.chunk_blocks.size == static_cast<std::size_t>(block_count), "the schedule has other chunks");
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
            .cut = work.shape.cut,
            .kv_layer = work.kv_layer,
            .q = work.q.data,
            .outputs = {or_null(work.rounded), or_null(work.partial), or_null(work.lse),
                        work.join == nullptr ? PeerExchange{} : *work.join},
            .slots = work.workspace.data,
            .query_heads = work.shape.heads.query_heads,
            .group = work.shape.heads.group(),
            .strictly_earlier = work.shape.strictly_earlier,
            .scale_log2 = work.scale * std::numbers::log2e_v<float>,
            .cap_inner = is_capped ? work.scale / work.soft_cap : 0,
            .cap_outer = is_capped ? work.soft_cap / work.scale : 0};
}

// Items from `first_item` on, with at most `query_count_max` new tokens each.
void launch_general(const Decode& work, std::size_t first_item, std::size_t item_count, int query_count_max,
                    Stream stream) {
    GeneralDecode general{.shape = work.shape,
                          .dtype = work.dtype,
                          .kv_dtype = work.kv_dtype,
                          .arguments = arguments_of(work),
                          .items = work.items.data + first_item,
                          .lists = work.lists.data + first_item * work.shape.heads.kv_heads,
                          .item_count = static_cast<int>(item_count)};
    general.shape.query_count_max = query_count_max;
    launch_decode_general(general, stream);
}

void launch_decodes(const Decode& work, const Variant* variant, Stream stream) {
    if (variant == nullptr) {
        launch_general(work, 0, decode_count(work), work.shape.query_count_max, stream);
    } else {
        variant->launch(arguments_of(work), stream);
    }
}

void launch_chunks(const Decode& work, const ChunkVariant* variant, Stream stream) {
    if (variant == nullptr) {
        launch_general(work, decode_count(work), work.chunk_count, work.shape.chunk_query_count_max, stream);
        return;
    }
    DecodeArguments arguments = arguments_of(work);
    arguments.slots += decode_slots_floats(work.shape, static_cast<int>(work.blocks.size));
    if (work.kv_dtype == KvDtype::as_model) {
        variant->launch({arguments, work.chunk_blocks.data, static_cast<int>(work.chunk_blocks.size)}, stream);
        return;
    }
    launch_fp8_chunks({.shape = work.shape,
                       .arguments = arguments,
                       .items = work.items.data + decode_count(work),
                       .lists = work.lists.data + decode_count(work) * work.shape.heads.kv_heads,
                       .item_count = work.chunk_count,
                       .list_pages_max = work.list_pages_max,
                       .scratch = work.scratch.data,
                       .scratch_bytes = work.scratch.size,
                       .deterministic = work.deterministic,
                       .launch_prefill = variant->launch},
                      stream);
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

DecodePath path_of(const DecodeShape& shape, Dtype dtype, KvDtype kv_dtype) {
    if (find_variant(shape, dtype, kv_dtype) == nullptr) return DecodePath::general;
    return shape.units_per_stream() == 1 ? DecodePath::one_pass : DecodePath::several_passes;
}

DecodePath chunk_path_of(const DecodeShape& shape, Dtype dtype, KvDtype kv_dtype) {
    return find_chunk_variant(shape, dtype, kv_dtype) == nullptr ? DecodePath::general : DecodePath::chunks;
}

bool can_join(const DecodeShape& shape, Dtype dtype, KvDtype kv_dtype) {
    return find_variant(shape, dtype, kv_dtype) != nullptr &&
           has_registers_to_join(kv_dtype, shape.heads.head_dim, shape.unit_rows());
}

std::size_t decode_workspace_floats(const DecodeShape& shape, int block_count) {
    const std::size_t chunk_slots = shape.chunk_query_count_max > 0 ? kPrefillCutBlocks : 0;
    return decode_slots_floats(shape, block_count) + chunk_slots * prefill_slot_floats(shape.heads.head_dim);
}

std::size_t decode_scratch_bytes(const DecodeShape& shape, int list_pages_max, int stream_count) {
    return fp8_scratch_bytes(shape, list_pages_max, stream_count);
}

void reset_decode_workspace(DeviceSpan<float> workspace, Stream stream) {
    check_cuda(cudaMemsetAsync(workspace.data, 0xff, workspace.size * sizeof(float), stream), "cudaMemsetAsync");
}

DecodePath decode(const Decode& work, Stream stream) {
    check_numbers(work);
    check_memory(work);
    if (work.join != nullptr) check_join(work);
    const Variant* const variant = work.only_general ? nullptr : find_variant(work.shape, work.dtype, work.kv_dtype);
    const ChunkVariant* const chunk_variant =
        work.only_general ? nullptr : find_chunk_variant(work.shape, work.dtype, work.kv_dtype);
    const bool has_decodes = decode_count(work) > 0, has_chunks = work.chunk_count > 0;
    if (has_decodes && variant != nullptr) check_schedule(work);
    if (has_chunks && chunk_variant != nullptr) check_chunk_memory(work);
    if (work.row_count > 0 && has_decodes) launch_decodes(work, variant, stream);
    if (work.row_count > 0 && has_chunks) launch_chunks(work, chunk_variant, stream);
    if (has_decodes || !has_chunks)
        return variant == nullptr ? DecodePath::general : path_of(work.shape, work.dtype, work.kv_dtype);
    return chunk_variant == nullptr ? DecodePath::general : DecodePath::chunks;
}

}  // namespace kvgrid::kernels
