#pragma once

#include <cstddef>
#include <span>

#include "core/model_spec.h"
#include "core/result.h"

namespace kvgrid::worker {

// The tensors of one layer call: q where there is one, then k and v [tokens, kv_heads, head_dim]; sizes are right already.
struct FiniteCheck {
    const ModelSpec& spec;
    int layer;
    int tokens;
    std::span<const std::byte> tensors;
};

// invalid_argument that names the first element of k or v that is NaN or infinite. One such value stored would spoil every later
// token of its sequence. q is not looked at: it is not stored, and what it spoils are its own rows of the output.
//
//   Cost  reads k and v once.
Status check_finite(const FiniteCheck& call);

}  // namespace kvgrid::worker
