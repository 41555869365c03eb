#include "worker/device.h"

#include "worker/host_join.h"

namespace kvgrid::worker {

int kv_layer_index(const ModelSpec& spec, int layer) {
    int before = 0;
    for (int other = 0; other < spec.layers[layer].kv_layer; ++other) before += spec.owns_kv(other);
    return before;
}

std::size_t DeviceModelShape::first_stream(int layer) const {
    return static_cast<std::size_t>(kv_layer_index(spec, layer)) * heads.kv_heads;
}

Result<std::unique_ptr<Join>> Device::make_join(comm::Collective& collective, int root, SpanRecorder* spans, Deadline) {
    return std::unique_ptr<Join>(std::make_unique<HostJoin>(collective, root, spans));
}

}  // namespace kvgrid::worker
