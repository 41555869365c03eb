#include "client/layer_payload.h"

#include <fmt/core.h>

#include <algorithm>

namespace kvgrid {
namespace {

std::size_t query_bytes(const LayerCall& call) {
    if (call.kind == StepKind::write || !call.has_q) return 0;
    return static_cast<std::size_t>(call.tokens) * call.spec.query_heads * call.spec.row_bytes();
}

std::size_t kv_bytes(const LayerCall& call) {
    if (!call.spec.owns_kv(call.layer) || !call.has_kv) return 0;
    return static_cast<std::size_t>(call.tokens) * call.spec.kv_heads * call.spec.row_bytes();
}

Status check_layer(const LayerCall& call) {
    if (call.layer < 0 || call.layer >= call.spec.layer_count())
        return {Errc::invalid_argument, fmt::format("layer {}: model '{}' has layers 0 to {}", call.layer,
                                                    call.spec.name, call.spec.layer_count() - 1)};
    if (call.kind == StepKind::write && !call.spec.owns_kv(call.layer))
        return {Errc::invalid_argument, fmt::format("layer {} reads the KV of layer {}: a write step leaves it out",
                                                    call.layer, call.spec.layers[call.layer].kv_layer)};
    if (!call.has_q && !(call.has_kv && call.spec.owns_kv(call.layer)))
        return {Errc::invalid_argument,
                fmt::format("layer {} is called with nothing to do: give it q{}", call.layer,
                            call.spec.owns_kv(call.layer) ? ", or k and v, or all" : "; it owns no KV")};
    return {};
}

Status check_tensor(const LayerCall& call, const char* name, std::size_t got, std::size_t expected) {
    if (got == expected) return {};
    return {Errc::invalid_argument,
            fmt::format("{} of layer {} has {} bytes; {} tokens of model '{}' make {}{}", name, call.layer, got,
                        call.tokens, call.spec.name, expected, expected ? "" : " here")};
}

}  // namespace

LayerCall layer_call(const ModelSpec& spec, StepKind kind, int tokens, int layer, const LayerInput& input) {
    LayerCall call{spec, kind, tokens, layer};
    if (kind != StepKind::iterate) return call;
    call.has_q = !input.q.empty();
    call.has_kv = !input.k.empty() || !input.v.empty();
    return call;
}

Status check_layer_input(const LayerCall& call, const LayerInput& input) {
    if (Status status = check_layer(call); !status) return status;
    if (Status status = check_tensor(call, "q", input.q.size(), query_bytes(call)); !status) return status;
    if (Status status = check_tensor(call, "k", input.k.size(), kv_bytes(call)); !status) return status;
    return check_tensor(call, "v", input.v.size(), kv_bytes(call));
}

std::size_t layer_input_bytes(const LayerCall& call) {
    return query_bytes(call) + 2 * kv_bytes(call);
}

std::size_t layer_output_bytes(const LayerCall& call) {
    return query_bytes(call);
}

void copy_layer_input(const LayerInput& input, std::span<std::byte> to) {
    auto at = to.begin();
    for (auto tensor : {input.q, input.k, input.v}) at = std::ranges::copy(tensor, at).out;
}

comm::Payload layer_payload(const LayerInput& input) {
    std::vector<std::byte> bytes;
    bytes.reserve(input.q.size() + input.k.size() + input.v.size());
    for (auto tensor : {input.q, input.k, input.v}) bytes.insert(bytes.end(), tensor.begin(), tensor.end());
    return comm::Payload::own(std::move(bytes));
}

bool may_be_under_way(const Error& error) {
    return error == Errc::deadline_exceeded || error == Errc::peer_lost || error == Errc::unavailable ||
           error == Errc::stale_generation;
}

Status check_layer_output(const LayerCall& call, std::span<const std::byte> bytes) {
    if (bytes.size() == query_bytes(call)) return {};
    return {Errc::corrupt, fmt::format("the lead answered {} bytes for o of layer {}; {} tokens of model '{}' make {}",
                                       bytes.size(), call.layer, call.tokens, call.spec.name, query_bytes(call))};
}

}  // namespace kvgrid
