#pragma once

#include "core/ids.h"
#include "core/model_spec.h"
#include "core/result.h"

// What the lead and the shards both know of steps, so that they say the same.
namespace kvgrid::worker {

enum class StepKind {
    attend,  // each layer in order, with q
    write,   // each layer that owns KV in order, without q
};

// The layer that a step of this kind takes after `layer` (-1: the first); layer_count after the last one.
int layer_after(const ModelSpec& spec, StepKind kind, int layer);

Error no_such_step(StepId step);

// wrong_state unless `layer` is the one that comes next, and there is one.
Status check_layer_order(const ModelSpec& spec, StepId step, int layer, int next_layer);

// wrong_state unless all layers are done.
Status check_all_layers_done(const ModelSpec& spec, StepId step, int next_layer);

}  // namespace kvgrid::worker
