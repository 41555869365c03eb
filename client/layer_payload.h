#pragma once

#include <vector>

#include "client/kvgrid.h"
#include "comm/wire/frame.h"

namespace kvgrid {

// What a layer call depends on.
struct LayerCall {
    const ModelSpec& spec;
    StepKind kind;
    int tokens;
    int layer;
    bool has_q = true, has_kv = true;  // false: left out, in an iterate step
};

// `layer` of such a step, called with these tensors.
LayerCall layer_call(const ModelSpec& spec, StepKind kind, int tokens, int layer, const LayerInput& input);

// invalid_argument names the layer that may not be called or the tensor, with the bytes that came and those that belong.
Status check_layer_input(const LayerCall& call, const LayerInput& input);

// What belongs: q, then k and v; and o.
std::size_t layer_input_bytes(const LayerCall& call);
std::size_t layer_output_bytes(const LayerCall& call);

// q, then k and v; `to` has layer_input_bytes.
void copy_layer_input(const LayerInput& input, std::span<std::byte> to);
// As one payload: the layer request's.
comm::Payload layer_payload(const LayerInput& input);

// Whether the lead may still be at work on a call that ended so.
bool may_be_under_way(const Error& error);

// What came as o. corrupt: there are more or fewer bytes than o has.
Status check_layer_output(const LayerCall& call, std::span<const std::byte> bytes);

}  // namespace kvgrid
