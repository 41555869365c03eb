#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.h"

namespace kvgrid::cli {

// Made-up tensors of the size that real ones have. The same seed gives the same values, so that whoever checks an answer can make its
// inputs again instead of keeping gigabytes.

// Logits of scale * q.k with scale = 1/sqrt(head_dim) have a standard deviation of 3: of 131,072 tokens some tens take most of
// the weight.
inline constexpr float kQueryDeviation = 1.5f;
inline constexpr float kKeyDeviation = 2;
inline constexpr float kValueDeviation = 1;

std::vector<std::byte> random_tensor(std::uint64_t seed, std::size_t count, float deviation, Dtype dtype);

// A seed for one of a tree of tensors: random_tensor(seed_of({act, token, layer}), ...).
std::uint64_t seed_of(std::span<const std::uint64_t> path);

}  // namespace kvgrid::cli
