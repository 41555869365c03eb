#pragma once

#include <random>
#include <string>
#include <vector>

#include "tests/grid/reference_cache.h"
#include "worker/operation.h"

namespace kvgrid::tests {

// One part of a step, with its random tensors for one layer.
struct LayerTensors {
    std::vector<float> q, k, v;    // all parts, as one call carries them
    std::vector<std::byte> bytes;  // q | k | v in the model's dtype

    void pack(Dtype dtype);  // makes `bytes` of the others
};

// Random tensors for a layer of a step over `tokens` tokens.
LayerTensors random_layer(std::mt19937& random, const ModelSpec& spec, int layer, int tokens, worker::StepKind kind);

// Appends each part's rows, where there are some, to the reference and compares the grid's output with its attention, where there is q. Returns what is wrong, or "".
std::string check_layer(ReferenceCache& reference, const ModelSpec& spec, int layer, const LayerTensors& tensors,
                        const std::vector<worker::StreamTable::Part>& parts, std::span<const std::byte> output);

// The layers that a step calls, up to the first `end` ones. Of kind iterate: those that own KV, then the others, all of them again from behind.
std::vector<int> layer_calls(const ModelSpec& spec, worker::StepKind kind, int end);

// Runs whole steps on something that has ThreadGrid's begin / layer / commit / abort, checking every layer's output.
template <class Grid>
std::string run_step(Grid& grid, ReferenceCache& reference, ModelId model, const ModelSpec& spec,
                     const std::vector<worker::StreamTable::Part>& parts, worker::StepKind kind, std::mt19937& random,
                     bool commit = true, int layers = -1) {
    auto [step, begun] = grid.begin({.step = {}, .model = model, .kind = kind, .parts = parts});
    if (!begun.status) return begun.status.error().to_string();
    int tokens = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        tokens += parts[i].tokens;
        if (begun.lengths[i] != reference.at(parts[i].sequence).length) return "begin told another length";
    }
    for (int layer : layer_calls(spec, kind, layers < 0 ? spec.layer_count() : layers)) {
        const LayerTensors tensors = random_layer(random, spec, layer, tokens, kind);
        const auto result = grid.layer(step, layer, tensors.bytes);
        if (!result.status) return result.status.error().to_string();
        const std::string wrong = check_layer(reference, spec, layer, tensors, parts, result.tensors.bytes());
        if (!wrong.empty()) return wrong;
    }
    const auto ended = commit ? grid.commit(step) : grid.abort(step);
    if (!ended.status) return ended.status.error().to_string();
    if (commit) {
        for (const auto& part : parts) reference.commit(part.sequence, part.tokens);
    }
    return {};
}

ModelSpec make_spec(int layers, int query_heads, int kv_heads, int head_dim, Dtype dtype);

}  // namespace kvgrid::tests
