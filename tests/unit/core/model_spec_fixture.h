#pragma once

#include "core/model_spec.h"

namespace kvgrid {

// Four layers that each own their KV; every rule holds.
inline ModelSpec small_spec() {
    ModelSpec spec;
    spec.name = "small";
    for (int layer = 0; layer < 4; ++layer) spec.layers.push_back({layer, 0, 0});
    spec.query_heads = 8;
    spec.kv_heads = 2;
    spec.head_dim = 64;
    spec.dtype = Dtype::bf16;
    spec.scale = 0.125;
    return spec;
}

}  // namespace kvgrid
