#include "worker/finite_check.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/non_finite.h"

namespace kvgrid::worker {

namespace {

const char* kind_of(float value) {
    return std::isnan(value) ? "NaN" : value > 0 ? "infinity" : "-infinity";
}

Status check_tensor(const FiniteCheck& call, const char* name, std::span<const std::byte> tensor) {
    const auto found = kernels::first_non_finite_cpu(tensor, call.spec.dtype);
    if (!found) return {};
    const std::size_t row = *found / call.spec.head_dim;
    return {Errc::invalid_argument,
            fmt::format(
                "layer {}: {} of token {} of {}, KV head {}, element {} is {}: mend it and call the layer again, or "
                "register the model with non_finite \"allow\"",
                call.layer, name, row / call.spec.kv_heads, call.tokens, row % call.spec.kv_heads,
                *found % call.spec.head_dim, kind_of(load_element(tensor.data(), *found, call.spec.dtype)))};
}

}  // namespace

Status check_finite(const FiniteCheck& call) {
    if (!call.spec.owns_kv(call.layer)) return {};
    const std::size_t bytes = call.spec.row_bytes() * call.spec.kv_heads * call.tokens;
    if (Status k = check_tensor(call, "k", call.tensors.last(2 * bytes).first(bytes)); !k) return k;
    return check_tensor(call, "v", call.tensors.last(bytes));
}

}  // namespace kvgrid::worker
