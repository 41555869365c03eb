#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/page_tokens.h"
#include "kernels/page_entry.h"

namespace kvgrid::kernels {

// Where the elements of one page lie on a CPU: K block then V block, each contiguous.
//
//   K block  [head_dim][64 tokens]   "dim-major": one vector load brings the same element of many tokens, so that scores need
//                                    no sum across lanes
//   V block  [64 tokens][head_dim]   token-major: one vector load brings many elements of one token
//
//   (token, dim) -> element index in the page is a bijection; tokens are counted within the page, 0..63. Slots of tokens that
//   the page does not hold yet have any content, NaN included: kernels must never let it reach a result.
struct PageLayout {
    int head_dim;

    std::size_t k_index(int token, int dim) const { return static_cast<std::size_t>(dim) * kPageTokens + token; }
    std::size_t v_index(int token, int dim) const {
        return static_cast<std::size_t>(kPageTokens) * head_dim + static_cast<std::size_t>(token) * head_dim + dim;
    }
};

// The memory that page indices point into. Pages are aligned to 64 bytes.
struct Slab {
    std::byte* base = nullptr;
    std::size_t page_bytes = 0;

    std::byte* page(std::uint32_t index) const { return base + index * page_bytes; }
};

}  // namespace kvgrid::kernels
