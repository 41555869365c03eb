#pragma once

#include <cmath>
#include <string>

#include "core/model_spec.h"

namespace kvgrid::bench {

// 32 query and 8 KV heads of 128, bf16, as in Llama-3.1-8B: each layer owns its KV.
inline ModelSpec bench_model(const std::string& name, int layers) {
    ModelSpec spec{.name = name,
                   .layers = {},
                   .query_heads = 32,
                   .kv_heads = 8,
                   .head_dim = 128,
                   .dtype = Dtype::bf16,
                   .scale = 1 / std::sqrt(128.0)};
    for (int layer = 0; layer < layers; ++layer) spec.layers.push_back({.kv_layer = layer});
    return spec;
}

}  // namespace kvgrid::bench
