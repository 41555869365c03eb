#include "kernels/append_check.h"

#include <stdexcept>
#include <string>

namespace kvgrid::kernels {

namespace {

[[noreturn]] void refuse(const std::string& what) {
    throw std::invalid_argument(what);
}

struct Sizes {
    int kv_heads, head_dim, row_count;
    std::size_t k_bytes, v_bytes;
};

void check_sizes(const Sizes& sizes, Dtype dtype, const Slab& slab) {
    if (sizes.kv_heads < 1 || sizes.head_dim < 1 || sizes.row_count < 0) {
        refuse("append: kv_heads and head_dim must be positive, row_count not negative");
    }
    const std::size_t row_bytes = static_cast<std::size_t>(sizes.head_dim) * byte_size(dtype);
    const std::size_t expected = row_bytes * sizes.kv_heads * sizes.row_count;
    if (sizes.k_bytes != expected || sizes.v_bytes != expected) {
        refuse("append: k has " + std::to_string(sizes.k_bytes) + " bytes and v " + std::to_string(sizes.v_bytes) +
               ", the shapes ask for " + std::to_string(expected));
    }
    if (slab.page_bytes < 2 * kPageTokens * row_bytes) {
        refuse("append: a page of " + std::to_string(slab.page_bytes) + " bytes is too small for " +
               std::to_string(2 * kPageTokens * row_bytes));
    }
}

void check_runs(const Sizes& sizes, std::span<const PageRun> runs, const Slab& slab) {
    if (!runs.empty() && slab.base == nullptr) refuse("append: the slab is null");
    for (const PageRun& run : runs) {
        if (run.token_count < 0 || run.slot < 0 || run.slot > kPageTokens - run.token_count) {
            refuse("append: a run of " + std::to_string(run.token_count) + " tokens at slot " +
                   std::to_string(run.slot) + " leaves its page");
        }
        if (run.row < 0 || run.row > sizes.row_count - run.token_count) {
            refuse("append: a run of " + std::to_string(run.token_count) + " tokens at row " + std::to_string(run.row) +
                   " leaves the " + std::to_string(sizes.row_count) + " rows of k and v");
        }
        if (run.head < 0 || run.head >= sizes.kv_heads) {
            refuse("append: head " + std::to_string(run.head) + " of " + std::to_string(sizes.kv_heads));
        }
    }
}

}  // namespace

void check_append(const Append& work) {
    const Sizes sizes{work.kv_heads, work.head_dim, work.row_count, work.k.size(), work.v.size()};
    check_sizes(sizes, work.dtype, work.slab);
    check_runs(sizes, work.runs, work.slab);
}

void check_read_pages(const ReadPages& work) {
    const Sizes sizes{work.kv_heads, work.head_dim, work.row_count, work.k.size(), work.v.size()};
    check_sizes(sizes, work.dtype, work.slab);
    check_runs(sizes, work.runs, work.slab);
}

}  // namespace kvgrid::kernels
