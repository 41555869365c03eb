#include "client/cli/demo/demo_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "client/cli/replay/replay.h"
#include "core/units.h"

namespace kvgrid::cli {

namespace {

constexpr std::uint64_t kProgramsBytes = std::uint64_t{1} << 30;  // six processes with their buffers
constexpr std::int64_t kContextTokensMin = 1'024;
constexpr int kWorkersMin = 2, kWorkersMax = 4;
constexpr int kSparePagesOfStream = 4;  // for the decoded tokens, and for the branches of the fork

std::uint64_t pool_bytes(const ModelSpec& spec, const GridShape& grid, std::int64_t tokens) {
    const std::int64_t pages = (tokens / kPageTokens) / grid.sequence_parts + 1 + kSparePagesOfStream;
    return pages * kv_heads_per_part_max(spec, grid) * spec.kv_layers().size() * spec.page_bytes();
}

std::uint64_t needed_bytes(const ModelSpec& spec, std::int64_t tokens) {
    return tokens * spec.token_bytes() + kProgramsBytes;
}

}  // namespace

ModelSpec smollm2_135m_spec(int layers) {
    ModelSpec spec{.name = "SmolLM2-135M",
                   .layers = {},
                   .query_heads = 9,
                   .kv_heads = 3,
                   .head_dim = 64,
                   .dtype = Dtype::bf16,
                   .scale = 0.125,
                   .logit_soft_cap = 0};
    for (int layer = 0; layer < layers; ++layer) spec.layers.push_back({.kv_layer = layer});
    return spec;
}

DemoPlan plan_demo(const analysis::Trace& trace, const DemoWish& wish, std::optional<std::uint64_t> available_bytes) {
    DemoPlan plan;
    if (wish.gpus > 0) {
        plan.grid = {1, std::clamp(wish.gpus, kWorkersMin, kWorkersMax)};
        plan.one_process = wish.gpus < plan.grid.workers();
        plan.trace_dtype = Dtype::bf16;
        available_bytes = std::nullopt;  // it is the GPUs' that counts, and the workers say if it is too little
    }
    plan.trace_pool_bytes = replay_pool_bytes(trace, plan.trace_dtype, plan.grid);
    plan.long_model = smollm2_135m_spec(wish.layers);
    plan.decode_tokens = wish.decode_tokens;
    plan.context_tokens = wish.context_tokens;
    while (available_bytes && plan.context_tokens > kContextTokensMin &&
           needed_bytes(plan.long_model, plan.context_tokens) > *available_bytes) {
        plan.context_tokens /= 2;
    }
    if (plan.context_tokens < wish.context_tokens) {
        plan.why_fewer_tokens =
            fmt::format("{} tokens would take {}, and this host has {} available: {} tokens instead",
                        wish.context_tokens, format_bytes(needed_bytes(plan.long_model, wish.context_tokens)),
                        format_bytes(*available_bytes), plan.context_tokens);
    }
    plan.long_pool_bytes = pool_bytes(plan.long_model, plan.grid, plan.context_tokens + plan.decode_tokens);
    return plan;
}

}  // namespace kvgrid::cli
