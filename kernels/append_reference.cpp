#include "kernels/append.h"
#include "kernels/append_check.h"

namespace kvgrid::kernels {

namespace {

void copy_element(std::byte* target, std::size_t target_index, const std::byte* source, std::size_t source_index,
                  std::size_t size) {
    for (std::size_t byte = 0; byte < size; ++byte) {
        target[target_index * size + byte] = source[source_index * size + byte];
    }
}

}  // namespace

void append_reference(const Append& work) {
    check_append(work);
    const PageLayout layout{work.head_dim};
    const std::size_t size = byte_size(work.dtype);
    for (const PageRun& run : work.runs) {
        std::byte* page = work.slab.page(run.page);
        for (int token = 0; token < run.token_count; ++token) {
            const std::size_t row = static_cast<std::size_t>(run.row + token) * work.kv_heads + run.head;
            for (int dim = 0; dim < work.head_dim; ++dim) {
                const std::size_t element = row * work.head_dim + dim;
                copy_element(page, layout.k_index(run.slot + token, dim), work.k.data(), element, size);
                copy_element(page, layout.v_index(run.slot + token, dim), work.v.data(), element, size);
            }
        }
    }
}

void read_pages_reference(const ReadPages& work) {
    check_read_pages(work);
    const PageLayout layout{work.head_dim};
    const std::size_t size = byte_size(work.dtype);
    for (const PageRun& run : work.runs) {
        const std::byte* page = work.slab.page(run.page);
        for (int token = 0; token < run.token_count; ++token) {
            const std::size_t row = static_cast<std::size_t>(run.row + token) * work.kv_heads + run.head;
            for (int dim = 0; dim < work.head_dim; ++dim) {
                const std::size_t element = row * work.head_dim + dim;
                copy_element(work.k.data(), element, page, layout.k_index(run.slot + token, dim), size);
                copy_element(work.v.data(), element, page, layout.v_index(run.slot + token, dim), size);
            }
        }
    }
}

}  // namespace kvgrid::kernels
