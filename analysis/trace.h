#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/model_spec.h"
#include "core/result.h"

namespace kvgrid::analysis {

// What one layer's attention saw and answered, one row per token: q and o [tokens, query_heads, head_dim], k and v
// [tokens, kv_heads, head_dim], after rotary embedding.
struct TraceLayer {
    int model_layer = 0;  // its number in the model
    std::vector<float> q, k, v, o;
};

// Some layers of a real model's run on real text: `prefill_tokens` in one chunk, then `decode_tokens` one by one.
struct Trace {
    ModelSpec spec;  // named "MODEL.trace", f32; its layer i is layers[i] and owns its KV
    std::string model;
    std::string license;  // of the model, hence of the trace
    int prefill_tokens = 0;
    int decode_tokens = 0;
    std::vector<std::int32_t> tokens;
    std::vector<TraceLayer> layers;

    int token_count() const { return prefill_tokens + decode_tokens; }
    std::size_t query_row() const {
        return static_cast<std::size_t>(spec.query_heads) * spec.head_dim;
    }  // elements of a token
    std::size_t kv_row() const { return static_cast<std::size_t>(spec.kv_heads) * spec.head_dim; }
};

// Reads a kvgrid trace: a safetensors file with
//
//   metadata  "kvgrid.trace" = "1", model, license, query_heads, kv_heads, head_dim, scale, dtype = "f32", layers
//   ("0,15,29",
//             ascending), prefill_tokens, decode_tokens; further keys are allowed
//   tensors   tokens I32 [tokens]; layer.N.q, .k, .v and .o F32 for each layer named; nothing else
//
//   Errors    not_found: no such file. unsupported: another version or dtype. corrupt: everything else that is not as
//   above, a spec
//             that breaks ModelSpec's rules, or a value that is not finite. The message names the file and the key or
//             tensor.
Result<Trace> read_trace(const std::filesystem::path& path);

// Values as elements of `dtype`, rounded to nearest even, and back.
std::vector<std::byte> bytes_of(std::span<const float> values, Dtype dtype);
std::vector<float> floats_of(std::span<const std::byte> bytes,
                             Dtype dtype);  // a rest that is no whole element is left out

}  // namespace kvgrid::analysis
