#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/kv_dtype.h"
#include "core/page_tokens.h"
#include "core/result.h"

namespace kvgrid {

// What a spec may not exceed. Products of a spec's numbers fit 64 bits because of these.
inline constexpr int kLayersMax = 1024;
inline constexpr int kHeadsMax = 1024;
inline constexpr int kHeadDimMin = 32;
inline constexpr int kHeadDimMax = 256;
inline constexpr std::int64_t kWindowMax = std::int64_t{1} << 40;

// Attention geometry of one layer.
struct LayerSpec {
    int kv_layer = 0;         // the layer whose K and V this layer's queries read; its own index where it owns KV
    std::int64_t window = 0;  // tokens that a query sees, itself included; 0: all
    std::int64_t sinks = 0;   // first tokens of the sequence that stay visible in spite of the window

    friend bool operator==(const LayerSpec&, const LayerSpec&) = default;
};

// Attention geometry of a model: all that kvgrid knows of it.
//
//   Invariant  A spec that came from `validated`, `parse_*` or the catalogue obeys every rule below.
//   Rules      1 <= layers <= 1024; 1 <= kv_heads <= query_heads <= 1024; query_heads % kv_heads == 0;
//              32 <= head_dim <= 256, a multiple of 8; 0 <= kv_layer < layers, and the layer named owns its KV
//              (kv_layer of it is itself: no chains); 0 <= window <= 2^40; 0 <= sinks <= 2^40, and only with a window;
//              kv_dtype fp8_e4m3 only with dtype bf16 or f16; scale finite and > 0; logit_soft_cap finite and >= 0; name of 1 to 128 printable ASCII characters.
struct ModelSpec {
    std::string name;
    std::vector<LayerSpec> layers;
    int query_heads = 0;
    int kv_heads = 0;
    int head_dim = 0;
    Dtype dtype = Dtype::f32;              // of q, k, v and o
    KvDtype kv_dtype = KvDtype::as_model;  // of K and V in pages; fp8 is lossy, and for GPU workers
    double scale = 0;                      // multiplies q.k; 1/sqrt(head_dim) where nothing else is said
    double logit_soft_cap = 0;             // c * tanh(logit / c) before masking; 0: none
    bool deterministic =
        false;  // an output's bits depend on its own sequence only, not on what else a call computes; slower
    bool allows_non_finite = false;  // whether new k and v may hold NaN and infinities; otherwise they are refused

    int layer_count() const { return static_cast<int>(layers.size()); }
    int group() const { return query_heads / kv_heads; }  // query heads that share one KV head
    bool owns_kv(int layer) const { return layers[layer].kv_layer == layer; }
    bool reads_later_layer(int layer) const { return layers[layer].kv_layer > layer; }

    // The layers that own KV, ascending. Storage is indexed by position in this list.
    std::vector<int> kv_layers() const;

    // One token's row of one head, as it travels.
    std::size_t row_bytes() const { return static_cast<std::size_t>(head_dim) * byte_size(dtype); }
    // One page of one stream, as it is stored: K block, V block, and what its kv_dtype needs besides.
    std::size_t page_bytes() const;
    // K and V of one token in all KV layers and heads, as they are stored.
    std::size_t token_bytes() const { return page_bytes() / kPageTokens * kv_heads * kv_layers().size(); }

    friend bool operator==(const ModelSpec&, const ModelSpec&) = default;
};

// The spec itself, or the first rule that it breaks: field, value and rule. A chain of kv_layers is `unsupported`,
// everything else `invalid_argument`.
Result<ModelSpec> validated(ModelSpec spec);

// Our own JSON form. Unknown, repeated and mistyped fields are refused, as is text beyond 1 MiB.
//
//   name, layers (a count), query_heads, kv_heads, head_dim, dtype
//   kv_layer_of      optional: an array, or LCKV notation ("0_20_20_21", suffix `s` for sliding); every layer its own
//   window           optional: a number for all layers or an array; 0. With LCKV's suffix `s`: a number that only the
//                    sliding layers take; 4096
//   sinks            optional: a number for all layers with a window, or an array; 0
//   scale            optional: 1/sqrt(head_dim)
//   logit_soft_cap   optional: 0
//   kv_dtype         optional: how K and V are stored, "fp8_e4m3" (lossy, and for GPU workers) or "as_model"; as_model
//   deterministic    optional: true or false; false
//   non_finite       optional: what becomes of NaN and infinities in new k and v, "refuse" or "allow"; refuse
//
// `to_json` writes what `parse_model_spec` reads back as an equal spec, numbers to the last bit.
Result<ModelSpec> parse_model_spec(std::string_view json);
std::string to_json(const ModelSpec& spec);

// A Hugging Face config.json: model_type llama (also SmolLM), mistral, qwen2, qwen3, gemma2, gemma3_text, and gemma3
// (its text_config; image tokens that see one another both ways are not modelled). A field that is not there has the
// value that transformers gives it. Fields that would change the mathematics and are not understood are refused by name
// (`unsupported`). RoPE is not looked at: keys come rotated.
Result<ModelSpec> parse_hugging_face_config(std::string_view json, std::string name);

// One item of the LCKV notation `layer_types`, e.g. "0_20_20s_21": which layer's KV is read, and whether through a
// window.
struct SharedLayer {
    int kv_layer;
    bool sliding;

    friend bool operator==(const SharedLayer&, const SharedLayer&) = default;
};

// One item per layer, each naming a layer that reads its own KV. A layer that is read by others and itself reads
// another's is understood (it computes KV for the others only) and refused as `unsupported`, like every chain.
Result<std::vector<SharedLayer>> parse_layer_types(std::string_view notation, int layer_count);

}  // namespace kvgrid
