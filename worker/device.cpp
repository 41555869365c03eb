#include "worker/device.h"

#include <span>
#include <utility>

#include "core/log.h"
#include "worker/host_join.h"
#include "worker/join_by_size.h"

namespace kvgrid::worker {

namespace {

std::string line_of(const JoinChoice& choice, bool pushes) {
    const char* const way = choice.way == JoinWay::nccl   ? "join over NCCL, in the GPUs' memory"
                            : choice.way == JoinWay::host ? "join over the hosts' memory"
                                                          : "no join";
    return std::string(pushes ? "small outputs are pushed into the lead GPU's memory; others " : "") + way + ": " +
           choice.why;
}

}  // namespace

int kv_layer_index(const ModelSpec& spec, int layer) {
    int before = 0;
    for (int other = 0; other < spec.layers[layer].kv_layer; ++other) before += spec.owns_kv(other);
    return before;
}

std::size_t DeviceModelShape::first_stream(int layer) const {
    return static_cast<std::size_t>(kv_layer_index(spec, layer)) * heads.kv_heads;
}

Result<std::shared_ptr<DeviceMemory>> Device::open_memory(std::span<const std::byte>, std::uint64_t) const {
    return {Errc::unsupported,
            "the worker keeps its pages in the host's memory and cannot open a GPU's: hand the tensors over in layer "
            "calls without GPU memory, or start the worker on the GPU (--device)"};
}

Result<std::unique_ptr<Join>> Device::make_join(const JoinPlace& place) {
    const auto all = identities(place);
    if (!all) return all.error();
    JoinChoice choice = choose_join(*all);
    std::unique_ptr<Join> join, pushing;
    if (choice.way == JoinWay::nccl) {
        auto agreed = agree_on(place, make_gathering_join(place, choice.share_process));
        if (!agreed) return agreed.error();
        join = *std::move(agreed);
        if (!join)
            choice = {JoinWay::host, choice.pushes, choice.share_process,
                      "NCCL has refused a rank, whose log says why"};
    }
    if (!join) join = std::make_unique<HostJoin>(place.collective, place.root, place.spans);
    if (choice.pushes) {
        auto agreed = agree_on(place, make_pushing_join(place, choice.share_process));
        if (!agreed) return agreed.error();
        pushing = *std::move(agreed);
    }
    log_info(line_of(choice, pushing != nullptr));
    if (!pushing) return join;
    return std::unique_ptr<Join>(std::make_unique<JoinBySize>(std::move(pushing), std::move(join)));
}

// Of all ranks, by rank.
Result<std::vector<JoinIdentity>> Device::identities(const JoinPlace& place) const {
    comm::Collective& collective = place.collective;
    std::vector<JoinIdentity> all(collective.size());
    if (collective.size() == 1) return all;
    JoinIdentity mine = join_identity();
    mine.wish = join_wish_;
    const Status told = collective.all_gather(std::as_bytes(std::span(&mine, 1)),
                                              std::as_writable_bytes(std::span(all)), place.deadline);
    if (!told) return told.error();
    return all;
}

// Null where not all ranks have made theirs.
Result<std::unique_ptr<Join>> Device::agree_on(const JoinPlace& place, Result<std::unique_ptr<Join>> made) {
    if (!made) log_warn("no join between the devices' memories: " + made.error().to_string());
    std::int64_t all_have[] = {made ? 1 : 0};
    if (Status agreed = place.collective.all_reduce(all_have, comm::ReduceOp::min, place.deadline); !agreed)
        return agreed.error();
    return all_have[0] == 1 ? std::move(made) : std::unique_ptr<Join>();
}

Result<std::unique_ptr<Join>> Device::make_gathering_join(const JoinPlace&, bool) {
    return {Errc::unsupported, "this device knows no way"};
}

Result<std::unique_ptr<Join>> Device::make_pushing_join(const JoinPlace&, bool) {
    return {Errc::unsupported, "this device knows no way"};
}

}  // namespace kvgrid::worker
