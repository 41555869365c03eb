#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/fp8_append.cuh"
#include "kernels/cuda/step_inputs.h"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kChunkBytes = DevicePageLayout::kChunkBytes;
constexpr int kQueryChunksPerBlock = 4 * kThreads;

struct Inputs {
    StepInputs work;
    int row_bytes;                               // of a head
    int row_heads;                               // of a token in k and v
    int q_chunks, q_copy_chunks, q_first_chunk;  // of a row
    int append_blocks;

    __device__ const PageEntry& entry_of(const ListRun& run, int head) const {
        const PageList list = work.lists.data[run.item * work.kv_heads + head];
        return work.entries.data[list.at_layer(work.kv_layer) + run.entry];
    }
    __device__ const std::byte* row_of(const ListRun& run, int head, int token, bool is_v) const {
        const std::size_t row = static_cast<std::size_t>(run.row + token) * row_heads + work.first_kv_head + head;
        return (is_v ? work.v.data : work.k.data) + row * row_bytes;
    }
};

// Bytes are moved. Neighbouring threads take neighbouring chunks of a row, which are neighbours in a panel, too.
struct PlainAppend {
    static constexpr int kBlocksPerRun = 1;

    static __device__ void append(const Inputs& inputs, const ListRun& run, int head, int) {
        const DevicePageLayout layout{inputs.row_bytes};
        const int chunks_per_row = inputs.row_bytes / kChunkBytes;
        std::byte* const page = inputs.work.slab.base + inputs.entry_of(run, head).page * inputs.work.slab.page_bytes;
        const int chunk_count = run.token_count * chunks_per_row;
        for (int index = threadIdx.x; index < 2 * chunk_count; index += kThreads) {
            const bool is_v = index >= chunk_count;
            const int at = is_v ? index - chunk_count : index;
            const int token = at / chunks_per_row, byte = at % chunks_per_row * kChunkBytes;
            const std::byte* const from = inputs.row_of(run, head, token, is_v) + byte;
            const std::size_t offset = (is_v ? layout.block_bytes() : 0) + layout.offset(run.slot + token, byte);
            *reinterpret_cast<uint4*>(page + offset) = *reinterpret_cast<const uint4*>(from);
        }
    }
};

// K and V are quantised by a block each.
template <class Element, int kHeadDimMax>
struct Fp8Append {
    static constexpr int kBlocksPerRun = 2;

    static __device__ void append(const Inputs& inputs, const ListRun& run, int head, int is_v) {
        const StepInputs& work = inputs.work;
        const DevicePageLayout layout = DevicePageLayout::of(work.head_dim, work.dtype, work.kv_dtype);
        std::byte* const page = work.slab.base + inputs.entry_of(run, head).page * work.slab.page_bytes;
        const Fp8BlockAppend block{.block = page + is_v * layout.block_bytes(),
                                   .scale = reinterpret_cast<float*>(page + layout.trailer_offset()) + is_v,
                                   .rows = inputs.row_of(run, head, 0, is_v != 0),
                                   .row_stride_bytes = static_cast<std::size_t>(inputs.row_heads) * inputs.row_bytes,
                                   .head_dim = work.head_dim,
                                   .slot = run.slot,
                                   .token_count = run.token_count};
        Fp8Appender<Element, kThreads, kHeadDimMax>(block).run();
    }
};

// The first blocks append, the others copy q.
template <class Append>
__global__ __launch_bounds__(kThreads) void take_inputs(const __grid_constant__ Inputs inputs) {
    const int block = blockIdx.x;
    if (block < inputs.append_blocks) {
        const int of_run = block % Append::kBlocksPerRun, at = block / Append::kBlocksPerRun;
        const int heads = inputs.work.kv_heads;
        return Append::append(inputs, inputs.work.runs.data[at / heads], at % heads, of_run);
    }
    const std::size_t chunk_count = inputs.work.q_copy.size / kChunkBytes;
    const std::size_t first = static_cast<std::size_t>(block - inputs.append_blocks) * kQueryChunksPerBlock;
    for (std::size_t index = first + threadIdx.x; index < first + kQueryChunksPerBlock && index < chunk_count;
         index += kThreads) {
        const std::size_t row = index / inputs.q_copy_chunks, chunk = index % inputs.q_copy_chunks;
        reinterpret_cast<uint4*>(inputs.work.q_copy.data)[index] =
            reinterpret_cast<const uint4*>(inputs.work.q.data)[row * inputs.q_chunks + inputs.q_first_chunk + chunk];
    }
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("step inputs: ") + rule);
}

bool is_aligned(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % kChunkBytes == 0;
}

// Of k and v; 0 where there are none.
int row_heads_of(const StepInputs& work) {
    const std::size_t bytes = static_cast<std::size_t>(work.row_count) * work.head_dim * byte_size(work.dtype);
    return bytes == 0 ? 0 : static_cast<int>(work.k.size / bytes);
}
int chunks_of_row(std::size_t bytes, const StepInputs& work) {
    return work.row_count == 0 ? 0 : static_cast<int>(bytes / work.row_count / kChunkBytes);
}

void check_inputs(const StepInputs& work) {
    require(work.kv_heads >= 1 && work.row_count >= 0, "kv_heads must be positive, row_count not negative");
    require(work.head_dim >= 8 && work.head_dim <= 256 && work.head_dim % 8 == 0,
            "head_dim must be a multiple of 8 from 8 to 256");
    require(work.kv_dtype == KvDtype::as_model || work.dtype != Dtype::f32, "dtype must be bf16 or f16 for fp8 pages");
    const std::size_t row_bytes = work.head_dim * byte_size(work.dtype);
    const int row_heads = row_heads_of(work);
    require(work.k.size == work.v.size && work.k.size == work.row_count * row_heads * row_bytes &&
                (work.k.size == 0 || row_heads >= work.first_kv_head + work.kv_heads) && work.first_kv_head >= 0,
            "k and v must be [row_count, heads, head_dim] with the heads that are taken, or empty");
    const auto is_rows = [&](std::size_t bytes) {
        return bytes == static_cast<std::size_t>(work.row_count) * chunks_of_row(bytes, work) * kChunkBytes;
    };
    require(is_rows(work.q.size) && is_rows(work.q_copy.size) && work.q_offset_bytes % kChunkBytes == 0 &&
                (work.q.size == 0) == (work.q_copy.size == 0),
            "q and its copy must be rows of whole chunks of 16 bytes");
    require(work.q_offset_bytes >= 0 && work.q_offset_bytes / kChunkBytes + chunks_of_row(work.q_copy.size, work) <=
                                            chunks_of_row(work.q.size, work),
            "rows of q must hold those of its copy");
    const DevicePageLayout layout = DevicePageLayout::of(work.head_dim, work.dtype, work.kv_dtype);
    require(work.slab.page_bytes >= layout.page_bytes() && work.slab.page_bytes % kChunkBytes == 0,
            "page_bytes must hold a page, and be a multiple of 16");
    require(is_aligned(work.slab.base) && is_aligned(work.k.data) && is_aligned(work.v.data) &&
                is_aligned(work.q.data) && is_aligned(work.q_copy.data),
            "the slab, k, v, q and its copy must be aligned to 16 bytes");
}

template <class Append>
void launch(const StepInputs& work, Stream stream) {
    const std::size_t append_blocks = work.k.size == 0 ? 0 : work.runs.size * work.kv_heads * Append::kBlocksPerRun;
    const std::size_t query_blocks = (work.q_copy.size / kChunkBytes + kQueryChunksPerBlock - 1) / kQueryChunksPerBlock;
    if (append_blocks + query_blocks == 0) return;
    const Inputs inputs{.work = work,
                        .row_bytes = work.head_dim * static_cast<int>(byte_size(work.dtype)),
                        .row_heads = row_heads_of(work),
                        .q_chunks = chunks_of_row(work.q.size, work),
                        .q_copy_chunks = chunks_of_row(work.q_copy.size, work),
                        .q_first_chunk = work.q_offset_bytes / kChunkBytes,
                        .append_blocks = static_cast<int>(append_blocks)};
    take_inputs<Append><<<static_cast<unsigned>(append_blocks + query_blocks), kThreads, 0, stream>>>(inputs);
    check_launch("take_inputs");
}

}  // namespace

void take_step_inputs(const StepInputs& work, Stream stream) {
    check_inputs(work);
    if (work.kv_dtype == KvDtype::as_model) return launch<PlainAppend>(work, stream);
    if (work.dtype == Dtype::bf16) {
        work.head_dim <= 128 ? launch<Fp8Append<Bf16, 128>>(work, stream) : launch<Fp8Append<Bf16, 256>>(work, stream);
    } else {
        work.head_dim <= 128 ? launch<Fp8Append<F16, 128>>(work, stream) : launch<Fp8Append<F16, 256>>(work, stream);
    }
}

}  // namespace kvgrid::kernels
