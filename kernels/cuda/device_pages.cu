#include "kernels/cuda/device_pages.h"

#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_page_layout.h"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kChunkBytes = DevicePageLayout::kChunkBytes;

struct MoveRuns {
    int kv_heads;
    int row_bytes;
    PageSlab slab;
    const PageRun* runs;
    std::byte* k;
    std::byte* v;
};

// One block per run. Neighbouring threads take neighbouring chunks of a row, which are neighbours in a panel, too.
template <bool kToPages>
__global__ __launch_bounds__(kThreads) void move_runs(const __grid_constant__ MoveRuns work) {
    const PageRun run = work.runs[blockIdx.x];
    const DevicePageLayout layout{work.row_bytes};
    const int chunks_per_row = work.row_bytes / kChunkBytes;
    std::byte* const page = work.slab.base + run.page * work.slab.page_bytes;
    const int chunk_count = run.token_count * chunks_per_row;
    for (int index = threadIdx.x; index < 2 * chunk_count; index += kThreads) {
        const bool is_v = index >= chunk_count;
        const int at = is_v ? index - chunk_count : index;
        const int token = at / chunks_per_row, byte = at % chunks_per_row * kChunkBytes;
        const std::size_t row = static_cast<std::size_t>(run.row + token) * work.kv_heads + run.head;
        auto* const of_row = reinterpret_cast<uint4*>((is_v ? work.v : work.k) + row * work.row_bytes + byte);
        const std::size_t offset = (is_v ? layout.block_bytes() : 0) + layout.offset(run.slot + token, byte);
        auto* const of_page = reinterpret_cast<uint4*>(page + offset);
        if (kToPages) {
            *of_page = *of_row;
        } else {
            *of_row = *of_page;
        }
    }
}

__global__ __launch_bounds__(kThreads) void copy_pages(PageSlab slab, const PagePair* pairs) {
    const PagePair pair = pairs[blockIdx.x];
    const auto* const source = reinterpret_cast<const uint4*>(slab.base + pair.source * slab.page_bytes);
    auto* const target = reinterpret_cast<uint4*>(slab.base + pair.target * slab.page_bytes);
    const int chunk_count = static_cast<int>(slab.page_bytes / sizeof(uint4));
#pragma unroll 8
    for (int chunk = threadIdx.x; chunk < chunk_count; chunk += kThreads) target[chunk] = source[chunk];
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("device pages: ") + rule);
}

bool is_aligned(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % kChunkBytes == 0;
}

// Of an append or of reading back.
template <class Work>
void check_runs(const Work& work) {
    require(work.kv_heads >= 1 && work.row_count >= 0, "kv_heads must be positive, row_count not negative");
    require(work.row_bytes >= kChunkBytes && work.row_bytes <= 1024 && work.row_bytes % kChunkBytes == 0,
            "row_bytes must be a multiple of 16 from 16 to 1024");
    const std::size_t bytes = static_cast<std::size_t>(work.row_count) * work.kv_heads * work.row_bytes;
    require(work.k.size == bytes && work.v.size == bytes, "k and v must be [row_count, kv_heads, row_bytes]");
    require(work.slab.page_bytes >= DevicePageLayout{work.row_bytes}.page_bytes() &&
                work.slab.page_bytes % kChunkBytes == 0,
            "page_bytes must hold the K and the V block, and be a multiple of 16");
    require(work.runs.size == 0 || work.slab.base != nullptr, "the slab is null");
    require(is_aligned(work.slab.base) && is_aligned(work.k.data) && is_aligned(work.v.data),
            "the slab, k and v must be aligned to 16 bytes");
}

}  // namespace

void append_on_device(const DeviceAppend& work, Stream stream) {
    check_runs(work);
    if (work.runs.size == 0) return;
    const MoveRuns move{work.kv_heads,
                        work.row_bytes,
                        work.slab,
                        work.runs.data,
                        const_cast<std::byte*>(work.k.data),  // only read in this direction
                        const_cast<std::byte*>(work.v.data)};
    move_runs<true><<<static_cast<unsigned>(work.runs.size), kThreads, 0, stream>>>(move);
    check_launch("move_runs");
}

void read_pages_on_device(const DeviceReadPages& work, Stream stream) {
    check_runs(work);
    if (work.runs.size == 0) return;
    const MoveRuns move{work.kv_heads, work.row_bytes, work.slab, work.runs.data, work.k.data, work.v.data};
    move_runs<false><<<static_cast<unsigned>(work.runs.size), kThreads, 0, stream>>>(move);
    check_launch("move_runs");
}

void copy_pages_on_device(const DeviceCopyPages& work, Stream stream) {
    require(work.slab.page_bytes % kChunkBytes == 0 && is_aligned(work.slab.base),
            "the slab and page_bytes must be aligned to 16 bytes");
    require(work.pairs.size == 0 || work.slab.base != nullptr, "the slab is null");
    if (work.pairs.size == 0) return;
    copy_pages<<<static_cast<unsigned>(work.pairs.size), kThreads, 0, stream>>>(work.slab, work.pairs.data);
    check_launch("copy_pages");
}

}  // namespace kvgrid::kernels
