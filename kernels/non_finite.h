#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "core/dtype.h"

namespace kvgrid::kernels {

// The index of the first element that is NaN or infinite; nothing if all are finite.
//
//   Shapes   values  any count of elements of `dtype`, at any alignment that an element has
//   Errors   std::invalid_argument where the bytes are no whole number of elements or not aligned to one.
//   Cost     reads every byte once / memory bandwidth, on the calling thread.
std::optional<std::size_t> first_non_finite_cpu(std::span<const std::byte> values, Dtype dtype);

// The same, one element after the other.
std::optional<std::size_t> first_non_finite_reference(std::span<const std::byte> values, Dtype dtype);

}  // namespace kvgrid::kernels
