#include "worker/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "core/log.h"
#include "worker/host_join.h"
#include "worker/join_by_size.h"

namespace kvgrid::worker {

int kv_layer_index(const ModelSpec& spec, int layer) {
    int before = 0;
    for (int other = 0; other < spec.layers[layer].kv_layer; ++other) before += spec.owns_kv(other);
    return before;
}

std::size_t DeviceModelShape::first_stream(int layer) const {
    return static_cast<std::size_t>(kv_layer_index(spec, layer)) * heads.kv_heads;
}

namespace {

// Null where not all ranks have made theirs.
Result<std::unique_ptr<Join>> made_by_all(const JoinPlace& place, Result<std::unique_ptr<Join>> made, const char* way) {
    if (!made) log_warn(fmt::format("no join {}: {}", way, made.error().to_string()));
    std::int64_t all_have[] = {made ? 1 : 0};
    if (Status agreed = place.collective.all_reduce(all_have, comm::ReduceOp::min, place.deadline); !agreed) {
        return agreed.error();
    }
    if (all_have[0] == 1) return made;
    return std::unique_ptr<Join>();
}

}  // namespace

// What the ranks' devices are to each other.
struct Device::JoinNeighbours {
    explicit JoinNeighbours(std::span<const JoinIdentity> all) {
        std::set<std::uint64_t> hosts;
        std::set<std::pair<std::uint64_t, std::uint64_t>> devices, processes;
        std::set<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>> uses;
        for (const JoinIdentity& one : all) {
            hosts.insert(one.host);
            devices.insert({one.host, one.device});
            processes.insert({one.host, one.process});
            uses.insert({one.host, one.device, one.process});
        }
        const bool share_device = devices.size()<all.size(), take_turns = uses.size()> devices.size();
        share_process = processes.size() < all.size();
        const auto may = [&](const JoinIdentity& one, JoinWish way) {
            return one.way == way || one.way == JoinWish::pushed || (one.way == JoinWish::best && !take_turns);
        };
        can_gather = std::ranges::all_of(all, [&](const JoinIdentity& one) {
            return may(one, JoinWish::gathered) && (share_device ? one.can_gather_shared : one.can_gather);
        });
        can_push = hosts.size() == 1 && std::ranges::all_of(all, [&](const JoinIdentity& one) {
                       return may(one, JoinWish::pushed) && one.can_push;
                   });
    }

    bool share_process;
    bool can_gather, can_push;
};

Result<std::unique_ptr<Join>> Device::make_join(const JoinPlace& place) {
    comm::Collective& collective = place.collective;
    std::unique_ptr<Join> over_hosts = std::make_unique<HostJoin>(collective, place.root, place.spans);
    if (collective.size() == 1) return over_hosts;
    JoinIdentity mine = join_identity();
    mine.way = join_wish_;
    std::vector<JoinIdentity> all(collective.size());
    const auto told = collective.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)),
                                            place.deadline);
    if (!told) return told.error();
    const JoinNeighbours neighbours(all);
    std::unique_ptr<Join> any = std::move(over_hosts);
    if (neighbours.can_gather) {
        auto made = made_by_all(place, make_gathering_join(place, neighbours.share_process), "between the GPUs");
        if (!made) return made.error();
        if (*made) any = *std::move(made);
    }
    if (!neighbours.can_push) return any;
    auto pushing = made_by_all(place, make_pushing_join(place, neighbours.share_process), "of small outputs");
    if (!pushing) return pushing.error();
    if (!*pushing) return any;
    return std::unique_ptr<Join>(std::make_unique<JoinBySize>(*std::move(pushing), std::move(any)));
}

Result<std::unique_ptr<Join>> Device::make_gathering_join(const JoinPlace&, bool) {
    return {Errc::unsupported, "this device knows no way"};
}

Result<std::unique_ptr<Join>> Device::make_pushing_join(const JoinPlace&, bool) {
    return {Errc::unsupported, "this device knows no way"};
}

}  // namespace kvgrid::worker
