#pragma once

#include <map>
#include <random>
#include <span>
#include <vector>

#include "core/ids.h"
#include "core/model_spec.h"
#include "core/window.h"

namespace kvgrid::tests {

// What a grid should answer, kept by the simplest means: every token's K and V of every KV layer as floats (already rounded to the
// model's dtype), attention by the formula in fp64.
class ReferenceCache {
  public:
    explicit ReferenceCache(ModelSpec spec) : spec_(std::move(spec)) {}

    struct Sequence {
        std::int64_t length = 0;
        Window window;
        std::vector<std::vector<float>> k, v;  // [layer][token * kv_heads * head_dim], empty where the layer owns no KV
    };

    void open(SequenceId id, Window window);
    void fork(SequenceId source, SequenceId target) { sequences_[target] = sequences_.at(source); }
    void close(SequenceId id) { sequences_.erase(id); }
    void truncate(SequenceId id, std::int64_t length);
    Sequence& at(SequenceId id) { return sequences_.at(id); }
    const std::map<SequenceId, Sequence>& sequences() const { return sequences_; }

    // Puts the rows of a layer behind the committed tokens; they are replaced by the next call for the same layer until `commit`.
    void append(SequenceId id, int layer, std::span<const float> k, std::span<const float> v);

    // o [tokens, query_heads, head_dim] for new tokens that begin at the sequence's committed length.
    std::vector<double> attend(SequenceId id, int layer, std::span<const float> q, int tokens) const;

    void commit(SequenceId id, int tokens) { sequences_.at(id).length += tokens; }

  private:
    ModelSpec spec_;
    std::map<SequenceId, Sequence> sequences_;
};

// Normal random numbers, rounded to the dtype.
std::vector<float> random_rows(std::mt19937& random, std::size_t count, Dtype dtype);
std::vector<std::byte> to_bytes(std::span<const float> values, Dtype dtype);
std::vector<float> to_floats(std::span<const std::byte> bytes, Dtype dtype);

// How far a right output may be from the fp64 reference, given the largest |v| it averages over. The kernels widen q, k and v exactly
// and accumulate in f32, so a logit is off by at most about head_dim * 2^-24 * |q||k| * scale (below 1e-4 for these data, typically
// 1e-6), which moves weights by the same relative amount; the sums of weights and products add some 2^-24 * sqrt(tokens). 5e-5 of |v|
// covers both with a margin; storing the output rounds it once more, to the dtype.
double output_tolerance(const ModelSpec& spec, double v_max);

}  // namespace kvgrid::tests
