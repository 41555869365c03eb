#include "worker/gpu/layer_classes.h"

#include <map>
#include <set>
#include <tuple>

namespace kvgrid::worker {

namespace {

using Seen = std::pair<std::int64_t, std::int64_t>;  // window, sinks

// Through which windows a KV layer is read: it keeps what any of them shows.
std::set<Seen> readers_of(const ModelSpec& spec, int kv_layer) {
    std::set<Seen> windows;
    for (const LayerSpec& layer : spec.layers) {
        if (layer.kv_layer == kv_layer) windows.emplace(layer.window, layer.sinks);
    }
    return windows;
}

}  // namespace

LayerClasses::LayerClasses(const ModelSpec& spec) {
    std::map<std::tuple<Seen, bool, std::set<Seen>>, int> known;
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        const LayerSpec& of = spec.layers[layer];
        const auto key =
            std::make_tuple(Seen{of.window, of.sinks}, spec.reads_later_layer(layer), readers_of(spec, of.kv_layer));
        const auto [found, is_new] = known.emplace(key, static_cast<int>(representative.size()));
        if (is_new) representative.push_back(layer);
        class_of.push_back(found->second);
        kv_layer_of.push_back(kv_layer_index(spec, layer));
    }
}

}  // namespace kvgrid::worker
