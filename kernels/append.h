#pragma once

#include <cstddef>
#include <span>

#include "core/dtype.h"
#include "kernels/page_layout.h"
#include "kernels/page_run.h"
#include "kernels/thread_pool.h"

namespace kvgrid::kernels {

// Copies new tokens into their pages, or (read_pages) back out of them. Moves bytes: only the element size matters.
//
//   Shapes   k, v  [row_count, kv_heads, head_dim] in `dtype`, token-major
//   Errors   std::invalid_argument where a run leaves its page, k or v, or sizes disagree; nothing is written then.
//   Cost     two reads and two writes of every byte of k and v / memory bandwidth; the K block is transposed on the way.
struct Append {
    int kv_heads;
    int head_dim;
    Dtype dtype;
    Slab slab;
    std::span<const PageRun> runs;
    int row_count;
    std::span<const std::byte> k;
    std::span<const std::byte> v;
};
void append_cpu(const Append& work, ThreadPool& threads);

struct ReadPages {
    int kv_heads;
    int head_dim;
    Dtype dtype;
    Slab slab;
    std::span<const PageRun> runs;
    int row_count;
    std::span<std::byte> k;  // rows and heads that no run names are untouched
    std::span<std::byte> v;
};
void read_pages_cpu(const ReadPages& work, ThreadPool& threads);

// Element by element through PageLayout.
void append_reference(const Append& work);
void read_pages_reference(const ReadPages& work);

}  // namespace kvgrid::kernels
