#include <math_constants.h>

#include <cmath>
#include <type_traits>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/decode_schedule_rules.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

namespace {

// One block per row (new token and query head). Its warps take the tokens of the stream in turn; a lane holds one chunk of the row, 8
// dims, if the head has that many. Right for every shape, and slow.
constexpr int kWarps = 4;
constexpr int kChunkDims = 8;
constexpr int kDimsMax = 32 * kChunkDims;

struct Chunk {
    float dims[kChunkDims];
};

// The types of q and of `rounded`; and of pages, where they are not fp8: how a lane's chunk is loaded, and one dim stored.
template <class Element>
struct TwoByteRows {
    static __device__ Chunk load(const void* from) {
        const uint4 words = *static_cast<const uint4*>(from);
        const std::uint32_t pairs[] = {words.x, words.y, words.z, words.w};
        Chunk chunk;
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
            chunk.dims[2 * pair] = Element::widen(static_cast<std::uint16_t>(pairs[pair]));
            chunk.dims[2 * pair + 1] = Element::widen(static_cast<std::uint16_t>(pairs[pair] >> 16));
        }
        return chunk;
    }
    static __device__ Chunk load_row(const void* rows, std::size_t at) {
        return load(static_cast<const std::uint16_t*>(rows) + at);
    }
    static __device__ Chunk load_slot(const std::byte* block, const DevicePageLayout& layout, int slot, int dim) {
        return load(block + layout.offset(slot, 2 * dim));
    }
    static __device__ void store(void* rows, std::size_t at, float value) {
        static_cast<std::uint16_t*>(rows)[at] = static_cast<std::uint16_t>(Element::pack(value, 0));
    }
};

struct F32Rows {
    static __device__ Chunk load(const void* first, const void* second) {
        const float4 low = *static_cast<const float4*>(first), high = *static_cast<const float4*>(second);
        return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    }
    static __device__ Chunk load_row(const void* rows, std::size_t at) {
        const float* const from = static_cast<const float*>(rows) + at;
        return load(from, from + 4);
    }
    // Neighbours in a row, and not always in a page.
    static __device__ Chunk load_slot(const std::byte* block, const DevicePageLayout& layout, int slot, int dim) {
        return load(block + layout.offset(slot, 4 * dim), block + layout.offset(slot, 4 * dim + 16));
    }
    static __device__ void store(void* rows, std::size_t at, float value) { static_cast<float*>(rows)[at] = value; }
};

struct Fp8Slots {
    static __device__ Chunk load_slot(const std::byte* block, const DevicePageLayout& layout, int slot, int dim) {
        const uint2 words = *reinterpret_cast<const uint2*>(block + layout.offset(slot, dim));
        std::uint32_t pairs[4];
        widen_e4m3(words.x, pairs[0], pairs[1]);
        widen_e4m3(words.y, pairs[2], pairs[3]);
        Chunk chunk;
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
            chunk.dims[2 * pair] = F16::widen(static_cast<std::uint16_t>(pairs[pair]));
            chunk.dims[2 * pair + 1] = F16::widen(static_cast<std::uint16_t>(pairs[pair] >> 16));
        }
        return chunk;
    }
};

// What one warp, or one block, has seen of a row.
struct RowSums {
    Chunk outcome{};
    float maximum = -INFINITY;
    float sum = 0;

    // A token with this logit, in powers of two.
    __device__ void add(float logit2, const Chunk& value) {
        if (logit2 > maximum) {
            rescale(exp2f(maximum - logit2));
            maximum = logit2;
        }
        const float weight = exp2f(logit2 - maximum);
        sum += weight;
        for (int dim = 0; dim < kChunkDims; ++dim) outcome.dims[dim] += weight * value.dims[dim];
    }
    __device__ void rescale(float factor) {
        sum *= factor;
        for (float& dim : outcome.dims) dim *= factor;
    }
};

__device__ float sum_of_lanes(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
    return value;
}

template <class Rows, bool kIsFp8>
class RowReader {
    using Slots = std::conditional_t<kIsFp8, Fp8Slots, Rows>;

  public:
    __device__ RowReader(const GeneralDecode& work, std::size_t output_row)
        : arguments_(work.arguments),
          layout_(DevicePageLayout::of(work.shape.heads.head_dim, work.dtype, work.kv_dtype)),
          first_dim_(static_cast<int>(threadIdx.x % 32) * kChunkDims),
          is_mine_(first_dim_ < work.shape.heads.head_dim) {
        if (!is_mine_) return;
        query_ = Rows::load_row(arguments_.q, output_row * work.shape.heads.head_dim + first_dim_);
    }

    __device__ PageScales scales(const std::byte* page) const {
        if constexpr (!kIsFp8) return {1, 1};
        const float2 both = *reinterpret_cast<const float2*>(page + layout_.trailer_offset());
        return {both.x, both.y};
    }
    __device__ float logit2(const std::byte* page, int slot, float k_scale) const {
        float product = 0;
        if (is_mine_) {
            const Chunk key = Slots::load_slot(page, layout_, slot, first_dim_);
            for (int dim = 0; dim < kChunkDims; ++dim) product += query_.dims[dim] * key.dims[dim];
        }
        product = sum_of_lanes(product) * k_scale;
        if (arguments_.cap_inner > 0) product = arguments_.cap_outer * tanhf(product * arguments_.cap_inner);
        return product * arguments_.scale_log2;
    }
    __device__ Chunk value(const std::byte* page, int slot, float v_scale) const {
        if (!is_mine_) return {};
        Chunk chunk = Slots::load_slot(page + layout_.block_bytes(), layout_, slot, first_dim_);
        for (float& dim : chunk.dims) dim *= v_scale;
        return chunk;
    }

  private:
    const DecodeArguments& arguments_;
    DevicePageLayout layout_;
    int first_dim_;  // of this lane's chunk
    bool is_mine_;
    Chunk query_{};
};

struct RowShared {
    float outcome[kWarps][kDimsMax];
    float maximum[kWarps];
    float sum[kWarps];
};

// Merges the warps' sums; a thread writes one dim at a time.
template <class Rows>
__device__ void write_row(const GeneralDecode& work, const RowShared& shared, std::size_t output_row) {
    float maximum = -CUDART_INF_F, sum = 0;
    for (float of_warp : shared.maximum) maximum = fmaxf(maximum, of_warp);
    float factors[kWarps];
    for (int warp = 0; warp < kWarps; ++warp) {
        factors[warp] = shared.sum[warp] == 0 ? 0 : exp2f(shared.maximum[warp] - maximum);
        sum += factors[warp] * shared.sum[warp];
    }
    const DecodeOutputs& outputs = work.arguments.outputs;
    const int head_dim = work.shape.heads.head_dim;
    for (int dim = threadIdx.x; dim < head_dim; dim += blockDim.x) {
        float outcome = 0;
        for (int warp = 0; warp < kWarps; ++warp) outcome += factors[warp] * shared.outcome[warp][dim];
        if (sum != 0) outcome /= sum;
        const std::size_t at = output_row * head_dim + dim;
        if (outputs.partial != nullptr) outputs.partial[at] = outcome;
        if (outputs.rounded != nullptr) Rows::store(outputs.rounded, at, outcome);
    }
    if (outputs.lse != nullptr && threadIdx.x == 0) {
        outputs.lse[output_row] = sum == 0 ? -CUDART_INF_F : CUDART_LN2_F * (maximum + log2f(sum));
    }
}

template <class Rows, bool kIsFp8>
__global__ __launch_bounds__(32 * kWarps) void decode_rows(const __grid_constant__ GeneralDecode work) {
    __shared__ RowShared shared;
    const HeadShape& heads = work.shape.heads;
    const int head = blockIdx.x % heads.query_heads, new_token = blockIdx.x / heads.query_heads;
    const DecodeItem item = work.items[blockIdx.y];
    if (new_token >= item.query_count) return;
    const int kv_head = head / heads.group();
    const PageList list = work.lists[blockIdx.y * heads.kv_heads + kv_head];
    const std::size_t output_row = static_cast<std::size_t>(item.first_row + new_token) * heads.query_heads + head;

    const std::int64_t query = item.first_query + new_token;
    DecodeUnit view{};  // of this row alone
    view.first_query = query;
    view.window = item.window;
    view.sinks = item.sinks;
    view.list = list.at_layer(work.arguments.kv_layer);
    const std::int64_t end = work.shape.strictly_earlier ? query : query + 1;
    set_visible_pages(view, work.arguments.entries + view.list, list.count, end);

    const RowReader<Rows, kIsFp8> reader(work, output_row);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    RowSums sums;
    for (int position = 0; position < view.page_count; ++position) {
        const PageEntry entry = work.arguments.entries[view.page_at(position, 0)];
        const std::byte* const page = work.arguments.slab + entry.page * work.arguments.page_bytes;
        const PageScales scales = reader.scales(page);
        for (int slot = warp; slot < static_cast<int>(entry.token_count); slot += kWarps) {
            const std::int64_t key = entry.first_token + slot;
            const bool in_window = item.window == 0 || key > query - item.window || key < item.sinks;
            if (key >= end || !in_window) continue;
            sums.add(reader.logit2(page, slot, scales.k), reader.value(page, slot, scales.v));
        }
    }
    for (int dim = 0; dim < kChunkDims; ++dim) shared.outcome[warp][lane * kChunkDims + dim] = sums.outcome.dims[dim];
    if (lane == 0) {
        shared.maximum[warp] = sums.maximum;
        shared.sum[warp] = sums.sum;
    }
    __syncthreads();
    write_row<Rows>(work, shared, output_row);
}

using Kernel = void (*)(GeneralDecode);

Kernel kernel_of(Dtype dtype, KvDtype kv_dtype) {
    const bool is_fp8 = kv_dtype == KvDtype::fp8_e4m3;
    switch (dtype) {
        case Dtype::f16:
            return is_fp8 ? decode_rows<TwoByteRows<F16>, true> : decode_rows<TwoByteRows<F16>, false>;
        case Dtype::bf16:
            return is_fp8 ? decode_rows<TwoByteRows<Bf16>, true> : decode_rows<TwoByteRows<Bf16>, false>;
        case Dtype::f32:
            break;
    }
    return decode_rows<F32Rows, false>;
}

}  // namespace

void launch_decode_general(const GeneralDecode& work, Stream stream) {
    const dim3 grid(work.shape.query_count_max * work.shape.heads.query_heads, work.item_count);
    kernel_of(work.dtype, work.kv_dtype)<<<grid, 32 * kWarps, 0, stream>>>(work);
    check_launch("decode_rows");
}

}  // namespace kvgrid::kernels
