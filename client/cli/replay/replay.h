#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "analysis/trace.h"
#include "client/cli/replay/deviation.h"
#include "client/kvgrid.h"

namespace kvgrid::cli {

struct ReplayLayer {
    int model_layer = 0;
    Deviation from_reference;              // fp64 attention over the same q, k and v, rounded as they are kept
    Deviation from_model;                  // what the model itself answered
    std::optional<Deviation> from_sent{};  // K and V in fp8: fp64 attention over k and v as they were sent
};

struct ReplayReport {
    std::string model;
    Dtype dtype{};
    KvDtype kv_dtype = KvDtype::as_model;
    GridShape grid;
    int prefill_tokens = 0;
    int decode_tokens = 0;
    double seconds = 0;  // in the grid; K and V in fp8: reading them back included
    std::vector<ReplayLayer> layers;

    bool passed() const;
};

// The trace's model with q, k, v in `dtype`, and the cache too unless it is in fp8.
ModelSpec replay_spec(const analysis::Trace& trace, Dtype dtype, KvDtype kv_dtype = KvDtype::as_model);

// Room for the trace on the fullest worker, `copies` times over.
std::uint64_t replay_pool_bytes(const analysis::Trace& trace, Dtype dtype, const GridShape& grid, int copies = 1);

struct ReplayHooks {
    std::function<void(int tokens_done)> progress;  // may be empty
    std::function<bool()> interrupted;              // may be empty; asked between calls
};

// Sends a trace through the grid as an engine would: the prefill in one step, then a step for each token, layer by layer; then checks
// every row (the head_dim elements of one token and query head) of every answer, twice:
//
//   reference  |o - r|   <= (2^-17 + u) max|r|              r: fp64 attention over q as sent and K and V as kept
//   model      |o - m|   <= (2^-17 + u) max|r| + 2^-17 max|m| + max|r - r0|      m: as recorded;  r0: over the inputs before rounding
//
// u is twice the unit roundoff of an f16 or bf16 answer (a GPU rounds the weights as well), 0 for f32. K and V are kept as sent, but for fp8:
// then they are read back after each step, and the report says how far the answers are from attention over what was sent. 2^-17, or 128
// roundings of f32, is for arithmetic in f32, once in the grid and once in the recorded run: a logit is a sum of head_dim products, whose
// roundings go up and down (the square root of their count, some 8, times the largest partial sum, some 20 in real models), and that is a
// relative error of one token's weight; the errors
// of different tokens average out. Recorded f32 attention is within 2^-18.8 of fp64. What rounding the inputs does is not estimated: it
// is the difference of two fp64 results.
Result<ReplayReport> replay(Client& client, const RegisteredModel& model, const analysis::Trace& trace,
                            const ReplayHooks& hooks = {});

}  // namespace kvgrid::cli
