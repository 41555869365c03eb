#include "worker/device.h"

#include <algorithm>

namespace kvgrid::worker {

std::size_t DeviceModelShape::first_stream(int layer) const {
    const int kv_layer = spec.layers[layer].kv_layer;
    std::size_t before = 0;
    for (int other = 0; other < kv_layer; ++other) before += spec.owns_kv(other);
    return before * heads.kv_heads;
}

}  // namespace kvgrid::worker
