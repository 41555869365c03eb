#include "worker/device.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "core/log.h"
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

Result<std::unique_ptr<Join>> Device::make_join(const JoinPlace& place) {
    comm::Collective& collective = place.collective;
    const auto over_hosts = [&] {
        return std::unique_ptr<Join>(std::make_unique<HostJoin>(collective, place.root, place.spans));
    };
    if (collective.size() == 1) return over_hosts();
    const JoinIdentity mine = join_identity();
    std::vector<JoinIdentity> all(collective.size());
    const auto told = collective.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)),
                                            place.deadline);
    if (!told) return told.error();
    std::set<std::pair<std::uint64_t, std::uint64_t>> devices, processes;
    for (const JoinIdentity& one : all) {
        devices.insert({one.host, one.device});
        processes.insert({one.host, one.process});
    }
    const bool are_shared = devices.size() < all.size();
    if (!std::ranges::all_of(all, [&](const JoinIdentity& one) { return are_shared ? one.can_share : one.can_join; })) {
        return over_hosts();
    }
    auto made = make_device_join(place, processes.size() < all.size());
    if (!made) log_warn("no join between the devices' memories: " + made.error().to_string());
    std::int64_t all_have[] = {made ? 1 : 0};
    if (Status agreed = collective.all_reduce(all_have, comm::ReduceOp::min, place.deadline); !agreed)
        return agreed.error();
    return all_have[0] == 1 ? std::move(made) : over_hosts();
}

Result<std::unique_ptr<Join>> Device::make_device_join(const JoinPlace&, bool) {
    return {Errc::unsupported, "this device knows no way"};
}

}  // namespace kvgrid::worker
