#include "tests/grid/driver.h"

#include <fmt/format.h>

#include <cmath>

namespace kvgrid::tests {

LayerTensors random_layer(std::mt19937& random, const ModelSpec& spec, int layer, int tokens, worker::StepKind kind) {
    const std::size_t row = static_cast<std::size_t>(tokens) * spec.head_dim;
    LayerTensors tensors;
    if (kind != worker::StepKind::write) tensors.q = random_rows(random, row * spec.query_heads, spec.dtype);
    if (spec.owns_kv(layer)) {
        tensors.k = random_rows(random, row * spec.kv_heads, spec.dtype);
        tensors.v = random_rows(random, row * spec.kv_heads, spec.dtype);
    }
    tensors.pack(spec.dtype);
    return tensors;
}

void LayerTensors::pack(Dtype dtype) {
    bytes.clear();
    for (const auto* rows : {&q, &k, &v}) {
        const auto added = to_bytes(*rows, dtype);
        bytes.insert(bytes.end(), added.begin(), added.end());
    }
}

std::vector<int> layer_calls(const ModelSpec& spec, worker::StepKind kind, int end) {
    const bool iterates = kind == worker::StepKind::iterate;
    std::vector<int> calls, others;
    for (int layer = 0; layer < end; ++layer) {
        if (spec.owns_kv(layer) || kind == worker::StepKind::attend) {
            calls.push_back(layer);
        } else if (iterates && spec.layers[layer].kv_layer < end) {
            others.push_back(layer);
        }
    }
    calls.insert(calls.end(), others.begin(), others.end());
    const std::vector<int> again(calls.rbegin(), calls.rend());
    if (iterates) calls.insert(calls.end(), again.begin(), again.end());
    return calls;
}

std::string check_layer(ReferenceCache& reference, const ModelSpec& spec, int layer, const LayerTensors& tensors,
                        const std::vector<worker::StreamTable::Part>& parts, std::span<const std::byte> output) {
    const std::vector<float> got = to_floats(output, spec.dtype);
    std::size_t row = 0;
    for (const auto& part : parts) {
        const std::size_t kv_row = static_cast<std::size_t>(spec.kv_heads) * spec.head_dim;
        const std::size_t q_row = static_cast<std::size_t>(spec.query_heads) * spec.head_dim;
        if (!tensors.k.empty()) {
            reference.append(part.sequence, layer, std::span(tensors.k).subspan(row * kv_row, part.tokens * kv_row),
                             std::span(tensors.v).subspan(row * kv_row, part.tokens * kv_row));
        }
        if (!tensors.q.empty()) {
            if (got.size() != tensors.q.size())
                return fmt::format("{} elements of output, expected {}", got.size(), tensors.q.size());
            const auto expected = reference.attend(
                part.sequence, layer, std::span(tensors.q).subspan(row * q_row, part.tokens * q_row), part.tokens);
            double v_max = 1;
            for (float value : reference.at(part.sequence).v[spec.layers[layer].kv_layer]) {
                v_max = std::max<double>(v_max, std::abs(value));
            }
            for (std::size_t i = 0; i < expected.size(); ++i) {
                const double difference = std::abs(got[row * q_row + i] - expected[i]);
                if (difference <= output_tolerance(spec, v_max)) continue;
                return fmt::format("layer {}, sequence {} of {} tokens, element {}: got {}, expected {}", layer,
                                   part.sequence.value, reference.at(part.sequence).length, i, got[row * q_row + i],
                                   expected[i]);
            }
        }
        row += part.tokens;
    }
    return {};
}

ModelSpec make_spec(int layers, int query_heads, int kv_heads, int head_dim, Dtype dtype) {
    ModelSpec spec{.name = "test",
                   .layers = {},
                   .query_heads = query_heads,
                   .kv_heads = kv_heads,
                   .head_dim = head_dim,
                   .dtype = dtype,
                   .scale = 1 / std::sqrt(head_dim)};
    for (int i = 0; i < layers; ++i) spec.layers.push_back({i, 0, 0});
    return validated(spec).value();
}

}  // namespace kvgrid::tests
