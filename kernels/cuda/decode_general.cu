#include <math_constants.h>

#include <cmath>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/decode_schedule_rules.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

namespace {

// One block per row (new token and query head). Its warps take the tokens of the stream in turn; a lane holds one 16-byte chunk of the
// row, 8 dims, if the head has that many. Right for every shape, and slow.
constexpr int kWarps = 4;
constexpr int kChunkDims = 8;
constexpr int kDimsMax = 32 * kChunkDims;

struct Chunk {
    float dims[kChunkDims];
};

template <class Element>
__device__ Chunk load_chunk(const void* from) {
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

__device__ Chunk load_e4m3_chunk(const void* from) {
    const uint2 words = *static_cast<const uint2*>(from);
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

template <class Element, bool kIsFp8>
class RowReader {
  public:
    __device__ RowReader(const GeneralDecode& work, std::size_t output_row)
        : arguments_(work.arguments),
          layout_(DevicePageLayout::of(work.shape.heads.head_dim, Dtype::bf16, work.kv_dtype)),
          is_mine_(first_dim() < work.shape.heads.head_dim) {
        if (is_mine_) {
            const std::size_t at = output_row * work.shape.heads.head_dim + first_dim();
            query_ = load_chunk<Element>(static_cast<const std::uint16_t*>(arguments_.q) + at);
        }
    }

    __device__ PageScales scales(const std::byte* page) const {
        if constexpr (!kIsFp8) return {1, 1};
        const float2 both = *reinterpret_cast<const float2*>(page + layout_.trailer_offset());
        return {both.x, both.y};
    }
    __device__ float logit2(const std::byte* page, int slot, float k_scale) const {
        float product = 0;
        if (is_mine_) {
            const Chunk key = load(page + layout_.k_offset(slot, first_byte()));
            for (int dim = 0; dim < kChunkDims; ++dim) product += query_.dims[dim] * key.dims[dim];
        }
        product = sum_of_lanes(product) * k_scale;
        if (arguments_.cap_inner > 0) product = arguments_.cap_outer * tanhf(product * arguments_.cap_inner);
        return product * arguments_.scale_log2;
    }
    __device__ Chunk value(const std::byte* page, int slot, float v_scale) const {
        if (!is_mine_) return {};
        Chunk chunk = load(page + layout_.v_offset(slot, first_byte()));
        for (float& dim : chunk.dims) dim *= v_scale;
        return chunk;
    }

  private:
    // This lane's chunk of a row.
    static __device__ int first_dim() { return static_cast<int>(threadIdx.x % 32) * kChunkDims; }
    static __device__ int first_byte() { return first_dim() * (kIsFp8 ? 1 : 2); }
    static __device__ Chunk load(const std::byte* from) {
        if constexpr (kIsFp8) return load_e4m3_chunk(from);
        return load_chunk<Element>(from);
    }

    const DecodeArguments& arguments_;
    DevicePageLayout layout_;
    bool is_mine_;
    Chunk query_{};
};

struct RowShared {
    float outcome[kWarps][kDimsMax];
    float maximum[kWarps];
    float sum[kWarps];
};

// Merges the warps' sums; a thread writes one dim at a time.
template <class Element>
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
        if (outputs.rounded != nullptr) {
            static_cast<std::uint16_t*>(outputs.rounded)[at] = static_cast<std::uint16_t>(Element::pack(outcome, 0));
        }
    }
    if (outputs.lse != nullptr && threadIdx.x == 0) {
        outputs.lse[output_row] = sum == 0 ? -CUDART_INF_F : CUDART_LN2_F * (maximum + log2f(sum));
    }
}

template <class Element, bool kIsFp8>
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

    const RowReader<Element, kIsFp8> reader(work, output_row);
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
    write_row<Element>(work, shared, output_row);
}

}  // namespace

void launch_decode_general(const GeneralDecode& work, Stream stream) {
    const bool is_fp8 = work.kv_dtype == KvDtype::fp8_e4m3;
    const auto kernel = work.is_f16 ? (is_fp8 ? decode_rows<F16, true> : decode_rows<F16, false>)
                                    : (is_fp8 ? decode_rows<Bf16, true> : decode_rows<Bf16, false>);
    const dim3 grid(work.shape.query_count_max * work.shape.heads.query_heads, work.item_count);
    kernel<<<grid, 32 * kWarps, 0, stream>>>(work);
    check_launch("decode_rows");
}

}  // namespace kvgrid::kernels
