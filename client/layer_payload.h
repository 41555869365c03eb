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
};

// q, then k and v, as one payload: the layer request's. invalid_argument names the layer that may not be called or the
// tensor, with the bytes that came and those that belong.
Result<comm::Payload> layer_payload(const LayerCall& call, const LayerInput& input);

// o out of the reply's payload. corrupt: it has another size than o.
Result<std::vector<std::byte>> layer_output(const LayerCall& call, const comm::Payload& payload);

}  // namespace kvgrid
