#pragma once

#include <vector>

#include "worker/device.h"

namespace kvgrid::worker {

// Layers whose page lists have the same lengths and whose queries see the same tokens, in every sequence: one schedule serves them all.
struct LayerClasses {
    explicit LayerClasses(const ModelSpec& spec);

    std::vector<int> class_of;        // [layer]
    std::vector<int> kv_layer_of;     // [layer] position of the KV layer that it reads among those that own KV
    std::vector<int> representative;  // [class] one of its layers
};

}  // namespace kvgrid::worker
