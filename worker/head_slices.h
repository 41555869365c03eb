#pragma once

#include <span>
#include <vector>

#include "comm/wire/frame.h"
#include "core/sharding.h"

namespace kvgrid::worker {

// One client's tensors of a layer call: q [tokens, query_heads, head_dim], then k and v [tokens, kv_heads, head_dim].
struct CallTensors {
    comm::Payload bytes;
    int tokens;
};

// Copies the same heads of every token, of [tokens, heads, row], to where the end of the copy is returned.
std::byte* copy_heads(const std::byte* from, int tokens, int heads, HeadRange taken, std::size_t row, std::byte* to);

// Cuts the tensors of some calls to the heads of each head part and puts the calls one behind the other:
// result[p] is q [all tokens, query heads of p, head_dim], then k and v [all tokens, KV heads of p, head_dim].
//
//   has_q, has_kv  whether the calls carry q (not in a write step) and k, v (where the layer owns KV)
//   Cost           one copy; none for a single call on one head part.
std::vector<comm::Payload> slice_by_head_part(const ModelSpec& spec, const GridShape& grid, bool has_q, bool has_kv,
                                              std::span<const CallTensors> calls);

// Bytes of one call's tensors, all heads.
std::size_t call_tensor_bytes(const ModelSpec& spec, bool has_q, bool has_kv, int tokens);

}  // namespace kvgrid::worker
