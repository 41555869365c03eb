#include <cmath>

#include "kernels/non_finite.h"

namespace kvgrid::kernels {

std::optional<std::size_t> first_non_finite_reference(std::span<const std::byte> values, Dtype dtype) {
    const std::size_t count = values.size() / byte_size(dtype);
    for (std::size_t index = 0; index < count; ++index) {
        if (!std::isfinite(load_element(values.data(), index, dtype))) return index;
    }
    return std::nullopt;
}

}  // namespace kvgrid::kernels
