#pragma once

#include <algorithm>
#include <cstdint>

#include "core/model_spec.h"

namespace kvgrid {

// A sliding window with sinks: the query with order number t sees j <= t with j > t - tokens or j < sinks. tokens == 0: everything.
struct Window {
    std::int64_t tokens = 0;
    std::int64_t sinks = 0;

    bool slides() const { return tokens > 0; }
};

// What a layer sees of a sequence that has a window of its own: the smaller window of the two, with its sinks.
inline Window window_of_layer(const LayerSpec& layer, const Window& sequence) {
    if (sequence.slides() && (layer.window == 0 || sequence.tokens <= layer.window)) return sequence;
    return {layer.window, layer.window == 0 ? 0 : layer.sinks};
}

// What must be kept of a KV layer so that all layers that read it see what they should: nothing may be dropped if one of them sees
// everything.
inline Window window_of_kv_layer(const ModelSpec& spec, int kv_layer, const Window& sequence) {
    Window kept{1, 0};
    for (const LayerSpec& layer : spec.layers) {
        if (layer.kv_layer != kv_layer) continue;
        const Window seen = window_of_layer(layer, sequence);
        if (!seen.slides()) return {};
        kept = {std::max(kept.tokens, seen.tokens), std::max(kept.sinks, seen.sinks)};
    }
    return kept;
}

// Tokens before this one (except sinks) are seen by no query at or after `length`; whole pages of them can be given back. A multiple
// of the page size, so that every shard draws the line at the same token; the page that the next token goes to stays.
inline std::int64_t first_kept_token(const Window& window, std::int64_t length) {
    if (!window.slides()) return 0;
    const std::int64_t first_seen = std::max<std::int64_t>(0, length - window.tokens + 1);
    return std::min(first_seen, length) / kPageTokens * kPageTokens;
}

}  // namespace kvgrid
