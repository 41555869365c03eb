#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/step_inputs.h"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kChunkBytes = DevicePageLayout::kChunkBytes;
constexpr int kQueryChunksPerBlock = 4 * kThreads;

// A run of one KV head. Neighbouring threads take neighbouring chunks of a row, which are neighbours in a panel, too.
__device__ void append_run(const StepInputs& work, const ListRun& run, int head) {
    const PageList list = work.lists.data[run.item * work.kv_heads + head];
    const PageEntry entry = work.entries.data[list.at_layer(work.kv_layer) + run.entry];
    const DevicePageLayout layout{work.row_bytes};
    const int chunks_per_row = work.row_bytes / kChunkBytes;
    std::byte* const page = work.slab.base + entry.page * work.slab.page_bytes;
    const int chunk_count = run.token_count * chunks_per_row;
    for (int index = threadIdx.x; index < 2 * chunk_count; index += kThreads) {
        const bool is_v = index >= chunk_count;
        const int at = is_v ? index - chunk_count : index;
        const int token = at / chunks_per_row, byte = at % chunks_per_row * kChunkBytes;
        const std::size_t row = static_cast<std::size_t>(run.row + token) * work.kv_heads + head;
        const std::byte* const from = (is_v ? work.v.data : work.k.data) + row * work.row_bytes + byte;
        const std::size_t offset = (is_v ? layout.block_bytes() : 0) + layout.offset(run.slot + token, byte);
        *reinterpret_cast<uint4*>(page + offset) = *reinterpret_cast<const uint4*>(from);
    }
}

// The first blocks append a run of one head each, the others copy q.
__global__ __launch_bounds__(kThreads) void take_inputs(const __grid_constant__ StepInputs work, int append_blocks) {
    const int block = blockIdx.x;
    if (block < append_blocks) return append_run(work, work.runs.data[block / work.kv_heads], block % work.kv_heads);
    const std::size_t chunk_count = work.q.size / kChunkBytes;
    const std::size_t first = static_cast<std::size_t>(block - append_blocks) * kQueryChunksPerBlock;
    for (std::size_t index = first + threadIdx.x; index < first + kQueryChunksPerBlock && index < chunk_count;
         index += kThreads) {
        reinterpret_cast<uint4*>(work.q_copy.data)[index] = reinterpret_cast<const uint4*>(work.q.data)[index];
    }
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("step inputs: ") + rule);
}

bool is_aligned(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % kChunkBytes == 0;
}

void check_inputs(const StepInputs& work) {
    require(work.kv_heads >= 1 && work.row_count >= 0, "kv_heads must be positive, row_count not negative");
    require(work.row_bytes >= kChunkBytes && work.row_bytes <= 1024 && work.row_bytes % kChunkBytes == 0,
            "row_bytes must be a multiple of 16 from 16 to 1024");
    const std::size_t bytes = static_cast<std::size_t>(work.row_count) * work.kv_heads * work.row_bytes;
    require(work.k.size == work.v.size && (work.k.size == bytes || work.k.size == 0),
            "k and v must be [row_count, kv_heads, row_bytes], or empty");
    require(work.q.size == work.q_copy.size && work.q.size % kChunkBytes == 0,
            "q must be whole chunks of 16 bytes, as many as its copy");
    require(work.slab.page_bytes >= DevicePageLayout{work.row_bytes}.page_bytes() &&
                work.slab.page_bytes % kChunkBytes == 0,
            "page_bytes must hold the K and the V block, and be a multiple of 16");
    require(is_aligned(work.slab.base) && is_aligned(work.k.data) && is_aligned(work.v.data) &&
                is_aligned(work.q.data) && is_aligned(work.q_copy.data),
            "the slab, k, v, q and its copy must be aligned to 16 bytes");
}

}  // namespace

void take_step_inputs(const StepInputs& work, Stream stream) {
    check_inputs(work);
    const std::size_t append_blocks = work.k.size == 0 ? 0 : work.runs.size * work.kv_heads;
    const std::size_t query_blocks = (work.q.size / kChunkBytes + kQueryChunksPerBlock - 1) / kQueryChunksPerBlock;
    if (append_blocks + query_blocks == 0) return;
    take_inputs<<<static_cast<unsigned>(append_blocks + query_blocks), kThreads, 0, stream>>>(
        work, static_cast<int>(append_blocks));
    check_launch("take_inputs");
}

}  // namespace kvgrid::kernels
