#include "kernels/cuda/fp8_pages.h"

#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/fp8_append.cuh"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;

DevicePageLayout layout_of(int head_dim) {
    return DevicePageLayout::of(head_dim, Dtype::bf16, KvDtype::fp8_e4m3);
}

struct Runs {
    int kv_heads;
    int head_dim;
    PageSlab slab;
    const PageRun* runs;
    std::byte* k;
    std::byte* v;
};

// One block per run, and for K and V each.
template <class Element, int kHeadDimMax>
__global__ __launch_bounds__(kThreads) void append_runs(const __grid_constant__ Runs work, std::size_t block_bytes) {
    const PageRun run = work.runs[blockIdx.x];
    if (run.token_count == 0) return;
    const int is_v = blockIdx.y;
    std::byte* const page = work.slab.base + run.page * work.slab.page_bytes;
    const std::size_t row_bytes = std::size_t{2} * work.head_dim;
    const std::size_t first = (static_cast<std::size_t>(run.row) * work.kv_heads + run.head) * row_bytes;
    const Fp8BlockAppend append{.block = page + is_v * block_bytes,
                                .scale = reinterpret_cast<float*>(page + 2 * block_bytes) + is_v,
                                .rows = (is_v ? work.v : work.k) + first,
                                .row_stride_bytes = work.kv_heads * row_bytes,
                                .head_dim = work.head_dim,
                                .slot = run.slot,
                                .token_count = run.token_count};
    Fp8Appender<Element, kThreads, kHeadDimMax>(append).run();
}

// The same division of the work.
template <class Element>
__global__ __launch_bounds__(kThreads) void read_runs(const __grid_constant__ Runs work) {
    constexpr int kDims = 8;
    const PageRun run = work.runs[blockIdx.x];
    const int is_v = blockIdx.y;
    const DevicePageLayout layout = DevicePageLayout::of(work.head_dim, Dtype::bf16, KvDtype::fp8_e4m3);
    const std::byte* const page = work.slab.base + run.page * work.slab.page_bytes;
    const std::byte* const block = page + is_v * layout.block_bytes();
    const float scale = reinterpret_cast<const float*>(page + layout.trailer_offset())[is_v];
    const int pieces_per_row = work.head_dim / kDims;
    for (int piece = threadIdx.x; piece < run.token_count * pieces_per_row; piece += kThreads) {
        const int token = piece / pieces_per_row, dim = piece % pieces_per_row * kDims;
        const uint2 words = *reinterpret_cast<const uint2*>(block + layout.offset(run.slot + token, dim));
        std::uint32_t pairs[4];
        widen_e4m3(words.x, pairs[0], pairs[1]);
        widen_e4m3(words.y, pairs[2], pairs[3]);
#pragma unroll
        for (std::uint32_t& pair : pairs) {
            pair = Element::pack(F16::widen(static_cast<std::uint16_t>(pair)) * scale,
                                 F16::widen(static_cast<std::uint16_t>(pair >> 16)) * scale);
        }
        const std::size_t row = static_cast<std::size_t>(run.row + token) * work.kv_heads + run.head;
        std::byte* const to = (is_v ? work.v : work.k) + (row * work.head_dim + dim) * 2;
        *reinterpret_cast<uint4*>(to) = {pairs[0], pairs[1], pairs[2], pairs[3]};
    }
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("fp8 pages: ") + rule);
}

bool is_aligned(const void* pointer, std::size_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

// Of an append or of reading back.
template <class Work>
void check_runs(const Work& work) {
    require(work.kv_heads >= 1 && work.row_count >= 0, "kv_heads must be positive, row_count not negative");
    require(work.head_dim >= 8 && work.head_dim <= 256 && work.head_dim % 8 == 0,
            "head_dim must be a multiple of 8 from 8 to 256");
    require(work.dtype == Dtype::bf16 || work.dtype == Dtype::f16, "dtype must be bf16 or f16");
    const std::size_t bytes = std::size_t{2} * work.row_count * work.kv_heads * work.head_dim;
    require(work.k.size == bytes && work.v.size == bytes, "k and v must be [row_count, kv_heads, head_dim]");
    require(work.slab.page_bytes >= layout_of(work.head_dim).page_bytes() && work.slab.page_bytes % 128 == 0,
            "page_bytes must hold K, V and the scales, and be a multiple of 128");
    require(work.runs.size == 0 || work.slab.base != nullptr, "the slab is null");
    require(is_aligned(work.slab.base, 128), "the slab must be aligned to 128 bytes");
    require(is_aligned(work.k.data, 16) && is_aligned(work.v.data, 16), "k and v must be aligned to 16 bytes");
}

}  // namespace

void append_fp8_on_device(const DeviceFp8Append& work, Stream stream) {
    check_runs(work);
    if (work.runs.size == 0) return;
    const Runs runs{work.kv_heads,
                    work.head_dim,
                    work.slab,
                    work.runs.data,
                    const_cast<std::byte*>(work.k.data),  // only read in this direction
                    const_cast<std::byte*>(work.v.data)};
    const dim3 grid(static_cast<unsigned>(work.runs.size), 2);
    const bool is_f16 = work.dtype == Dtype::f16;
    const auto kernel = work.head_dim <= 128 ? (is_f16 ? append_runs<F16, 128> : append_runs<Bf16, 128>)
                                             : (is_f16 ? append_runs<F16, 256> : append_runs<Bf16, 256>);
    kernel<<<grid, kThreads, 0, stream>>>(runs, layout_of(work.head_dim).block_bytes());
    check_launch("append_runs");
}

void read_fp8_pages_on_device(const DeviceFp8ReadPages& work, Stream stream) {
    check_runs(work);
    if (work.runs.size == 0) return;
    const Runs runs{work.kv_heads, work.head_dim, work.slab, work.runs.data, work.k.data, work.v.data};
    const dim3 grid(static_cast<unsigned>(work.runs.size), 2);
    const auto kernel = work.dtype == Dtype::f16 ? read_runs<F16> : read_runs<Bf16>;
    kernel<<<grid, kThreads, 0, stream>>>(runs);
    check_launch("read_runs");
}

}  // namespace kvgrid::kernels
