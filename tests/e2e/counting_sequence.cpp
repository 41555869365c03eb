#include "tests/e2e/counting_sequence.h"

#include <fmt/format.h>

#include <cmath>

namespace kvgrid::e2e {

namespace {

constexpr int kHeads = 2;
constexpr int kHeadDim = 64;

}  // namespace

ModelSpec counting_spec() {
    ModelSpec spec;
    spec.name = "counting";
    spec.layers.push_back({0, 0, 0});
    spec.query_heads = kHeads;
    spec.kv_heads = kHeads;
    spec.head_dim = kHeadDim;
    spec.dtype = Dtype::f32;
    spec.scale = 0.125;
    return spec;
}

Result<Step> CountingSequence::begin() {
    const StepPart part{&sequence_, 1};
    return client_->begin({&part, 1});
}

Status CountingSequence::step() {
    auto step = begin();
    if (!step) return step.error();
    return finish(std::move(*step));
}

Status CountingSequence::finish(Step step) {
    const std::vector<float> zeros(kHeads * kHeadDim), values(kHeads * kHeadDim, static_cast<float>(length_));
    const auto o = step.layer(
        0, {std::as_bytes(std::span(zeros)), std::as_bytes(std::span(zeros)), std::as_bytes(std::span(values))});
    if (!o) return o.error();
    const auto* means = reinterpret_cast<const float*>(o->data());
    const float expected = static_cast<float>(length_) / 2;
    for (int i = 0; i < kHeads * kHeadDim; ++i) {
        // Sums of whole numbers below 2^24 are exact; weights of 1 / n are not, and neither is their product.
        if (std::abs(means[i] - expected) > 1e-4f * (1 + expected))
            return {Errc::corrupt, fmt::format("the mean of {} tokens is {}", length_ + 1, means[i])};
    }
    if (Status committed = step.commit(); !committed) return committed;
    ++length_;
    return {};
}

Status CountingSequence::find_length() {
    auto info = sequence_.inspect();
    if (!info) return info.error();
    length_ = info->length;
    return {};
}

}  // namespace kvgrid::e2e
