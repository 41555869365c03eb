#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/page_tokens.h"

namespace kvgrid {

// The name of a page of a prompt, and of all that stands before it: whoever has the name of page n has the same tokens from the first one on.
//
//   hash(n) = SHA-256(hash(n - 1), the page's 64 token ids as little-endian int64)
//   hash(-1) = SHA-256("kvgrid prefix 1", then whatever else K and V depend on: weights, adapters, what is no token)
//
// The cluster compares names and computes none, so token ids never reach it: how they are made is the clients' to agree on, and the above is what
// kvgrid's own do.
using PrefixHash = std::array<std::byte, 32>;

inline constexpr int kPrefixPagesMax = 16'384;  // names of one prompt: a million tokens

constexpr std::int64_t prefix_tokens(std::size_t pages) {
    return static_cast<std::int64_t>(pages) * kPageTokens;
}

}  // namespace kvgrid
