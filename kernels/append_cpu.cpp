#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/append.h"
#include "kernels/append_check.h"
#include "kernels/transpose.h"

namespace kvgrid::kernels {

namespace {

// Below this it is cheaper to do the work than to wake a thread for it.
constexpr std::size_t kTaskBytesMin = 64 * 1024;
constexpr int kTasksPerThread = 4;

std::size_t byte_count(std::span<const PageRun> runs, std::size_t row_bytes) {
    std::size_t token_count = 0;
    for (const PageRun& run : runs) token_count += run.token_count;
    return 2 * token_count * row_bytes;
}

// Calls body(run) for all runs, consecutive ones in one task.
template <class Body>
void for_all_runs(std::span<const PageRun> runs, std::size_t row_bytes, ThreadPool& threads, const Body& body) {
    const std::size_t useful = byte_count(runs, row_bytes) / kTaskBytesMin;
    const std::size_t task_count =
        std::min({useful, runs.size(), std::size_t{1} * threads.thread_count() * kTasksPerThread});
    if (task_count <= 1 || threads.thread_count() == 1) {
        for (const PageRun& run : runs) body(run);
        return;
    }
    threads.run(static_cast<int>(task_count), [&](int task) {
        const std::size_t first = runs.size() * task / task_count;
        const std::size_t end = runs.size() * (task + 1) / task_count;
        for (const PageRun& run : runs.subspan(first, end - first)) body(run);
    });
}

// Where a run lies: bytes of its first token in k and v, and of its page.
struct Places {
    std::size_t row_bytes;     // one token of one head
    std::size_t stride_bytes;  // from one token to the next in k and v
    std::size_t first_byte;
    std::byte* k_block;
    std::byte* v_rows;
};

template <class Work>
Places places_of(const Work& work, const PageRun& run) {
    const std::size_t size = byte_size(work.dtype);
    const std::size_t row_bytes = work.head_dim * size;
    const std::size_t row = static_cast<std::size_t>(run.row) * work.kv_heads + run.head;
    const PageLayout layout{work.head_dim};
    std::byte* const page = work.slab.page(run.page);
    return {row_bytes, row_bytes * work.kv_heads, row * row_bytes, page + layout.k_index(run.slot, 0) * size,
            page + layout.v_index(run.slot, 0) * size};
}

void transpose(const Transpose& work, Dtype dtype) {
    if (byte_size(dtype) == 2) {
        transpose_elements<std::uint16_t>(work);
    } else {
        transpose_elements<std::uint32_t>(work);
    }
}

void append_run(const Append& work, const PageRun& run) {
    const Places at = places_of(work, run);
    const std::size_t k_stride_bytes = kPageTokens * byte_size(work.dtype);
    transpose(
        {work.k.data() + at.first_byte, at.stride_bytes, at.k_block, k_stride_bytes, run.token_count, work.head_dim},
        work.dtype);
    for (int token = 0; token < run.token_count; ++token) {
        std::memcpy(at.v_rows + token * at.row_bytes, work.v.data() + at.first_byte + token * at.stride_bytes,
                    at.row_bytes);
    }
}

void read_run(const ReadPages& work, const PageRun& run) {
    const Places at = places_of(work, run);
    const std::size_t k_stride_bytes = kPageTokens * byte_size(work.dtype);
    transpose(
        {at.k_block, k_stride_bytes, work.k.data() + at.first_byte, at.stride_bytes, work.head_dim, run.token_count},
        work.dtype);
    for (int token = 0; token < run.token_count; ++token) {
        std::memcpy(work.v.data() + at.first_byte + token * at.stride_bytes, at.v_rows + token * at.row_bytes,
                    at.row_bytes);
    }
}

}  // namespace

void append_cpu(const Append& work, ThreadPool& threads) {
    check_append(work);
    for_all_runs(work.runs, work.head_dim * byte_size(work.dtype), threads,
                 [&](const PageRun& run) { append_run(work, run); });
}

void read_pages_cpu(const ReadPages& work, ThreadPool& threads) {
    check_read_pages(work);
    for_all_runs(work.runs, work.head_dim * byte_size(work.dtype), threads,
                 [&](const PageRun& run) { read_run(work, run); });
}

}  // namespace kvgrid::kernels
