#pragma once

#include <cstdint>
#include <vector>

#include "client/cli/demo/demo_tensors.h"
#include "client/kvgrid.h"

namespace kvgrid::cli {

// A long made-up context. It arrives in chunks; a chunk's k and v are made once and stand in every layer.
inline constexpr int kChunkTokens = 2'048;

struct KvChunk {
    std::vector<std::byte> k, v;  // [tokens, kv_heads, head_dim]
};
KvChunk context_chunk(const ModelSpec& spec, std::int64_t chunk, int tokens);

// q, k and v of some new tokens in one layer. Different `run`s have different tokens.
struct NewTokens {
    std::vector<std::byte> q, k, v;

    LayerInput input() const { return {q, k, v}; }
};
NewTokens new_tokens(const ModelSpec& spec, std::uint64_t run, int layer, int tokens);

// Writes one chunk into every layer of a sequence: one write step, its layers sent without waiting for one another.
Status write_chunk(Client& client, const ModelSpec& spec, const Sequence& sequence, const KvChunk& chunk, int tokens);

// fp64 attention of the first new token of a context, all query heads: [query_heads * head_dim].
std::vector<double> exact_first_row(const ModelSpec& spec, std::int64_t context_tokens, const NewTokens& first);

}  // namespace kvgrid::cli
