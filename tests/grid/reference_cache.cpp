#include "tests/grid/reference_cache.h"

#include <algorithm>
#include <cmath>

#include "tests/grid/test_device.h"

namespace kvgrid::tests {

void ReferenceCache::open(SequenceId id, Window window) {
    Sequence sequence;
    sequence.window = window;
    sequence.k.resize(spec_.layer_count());
    sequence.v.resize(spec_.layer_count());
    sequences_[id] = std::move(sequence);
}

void ReferenceCache::truncate(SequenceId id, std::int64_t length) {
    Sequence& sequence = sequences_.at(id);
    sequence.length = length;
}

void ReferenceCache::append(SequenceId id, int layer, std::span<const float> k, std::span<const float> v) {
    Sequence& sequence = sequences_.at(id);
    const std::size_t committed = sequence.length * spec_.kv_heads * spec_.head_dim;
    for (auto [rows, added] : {std::pair{&sequence.k[layer], k}, std::pair{&sequence.v[layer], v}}) {
        rows->resize(committed);
        rows->insert(rows->end(), added.begin(), added.end());
    }
}

std::vector<double> ReferenceCache::attend(SequenceId id, int layer, std::span<const float> q, int tokens) const {
    const Sequence& sequence = sequences_.at(id);
    const Window window = window_of_layer(spec_.layers[layer], sequence.window);
    const auto& k = sequence.k[spec_.layers[layer].kv_layer];
    const auto& v = sequence.v[spec_.layers[layer].kv_layer];
    const int dim = spec_.head_dim;
    std::vector<double> out(q.size(), 0.0);
    for (int token = 0; token < tokens; ++token) {
        const std::int64_t t = sequence.length + token;
        const std::int64_t end = spec_.reads_later_layer(layer) ? t : t + 1;
        for (int head = 0; head < spec_.query_heads; ++head) {
            const std::size_t row = (static_cast<std::size_t>(token) * spec_.query_heads + head) * dim;
            const int kv_head = head / spec_.group();
            std::vector<double> logits;
            std::vector<std::int64_t> seen;
            for (std::int64_t j = 0; j < end; ++j) {
                if (window.slides() && j <= t - window.tokens && j >= window.sinks) continue;
                double dot = 0;
                const std::size_t key = (j * spec_.kv_heads + kv_head) * dim;
                for (int i = 0; i < dim; ++i) dot += static_cast<double>(q[row + i]) * k[key + i];
                dot *= spec_.scale;
                if (spec_.logit_soft_cap > 0) dot = spec_.logit_soft_cap * std::tanh(dot / spec_.logit_soft_cap);
                logits.push_back(dot);
                seen.push_back(j);
            }
            if (seen.empty()) continue;
            const double top = *std::ranges::max_element(logits);
            double sum = 0;
            for (double& logit : logits) sum += logit = std::exp(logit - top);
            for (std::size_t n = 0; n < seen.size(); ++n) {
                const std::size_t value = (seen[n] * spec_.kv_heads + kv_head) * dim;
                for (int i = 0; i < dim; ++i) out[row + i] += logits[n] / sum * v[value + i];
            }
        }
    }
    return out;
}

std::vector<float> random_rows(std::mt19937& random, std::size_t count, Dtype dtype) {
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    std::byte element[4];
    for (float& value : values) {
        store_element(element, 0, dtype, normal(random));
        value = load_element(element, 0, dtype);
    }
    return values;
}

std::vector<std::byte> to_bytes(std::span<const float> values, Dtype dtype) {
    std::vector<std::byte> bytes(values.size() * byte_size(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) store_element(bytes.data(), i, dtype, values[i]);
    return bytes;
}

std::vector<float> to_floats(std::span<const std::byte> bytes, Dtype dtype) {
    std::vector<float> values(bytes.size() / byte_size(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = load_element(bytes.data(), i, dtype);
    return values;
}

double output_tolerance(const ModelSpec& spec, double v_max) {
    return v_max * (5e-5 + 1.01 * (unit_roundoff(spec.dtype) + weight_roundoff(spec.dtype)));
}

}  // namespace kvgrid::tests
