#include "worker/join_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "comm/collective/nccl/nccl_version.h"

namespace kvgrid::worker {

namespace {

using comm::kNcclSharesGpus;
using comm::nccl_version_text;

std::size_t count_different(std::span<const JoinIdentity> ranks, std::uint64_t JoinIdentity::*what) {
    std::set<std::pair<std::uint64_t, std::uint64_t>> different;
    for (const JoinIdentity& rank : ranks) different.insert({rank.host, rank.*what});
    return different.size();
}

}  // namespace

JoinChoice choose_join(std::span<const JoinIdentity> ranks) {
    if (ranks.size() == 1) return {.way = JoinWay::alone, .why = "the grid has one rank"};
    const auto over_hosts = [](std::string why) { return JoinChoice{.way = JoinWay::host, .why = std::move(why)}; };
    const auto on_cpu = std::ranges::find(ranks, 0u, &JoinIdentity::is_gpu);
    if (on_cpu != ranks.end()) return over_hosts(fmt::format("rank {} is on a CPU", on_cpu - ranks.begin()));
    const auto oldest = std::ranges::min_element(ranks, {}, &JoinIdentity::nccl_version);
    if (oldest->nccl_version == 0)
        return over_hosts(fmt::format("rank {} was built without NCCL", oldest - ranks.begin()));
    const std::string version = nccl_version_text(static_cast<int>(oldest->nccl_version));
    const std::size_t gpus = count_different(ranks, &JoinIdentity::device);
    if (gpus < ranks.size() && oldest->nccl_version < kNcclSharesGpus) {
        return over_hosts(fmt::format("NCCL {} cannot serve several ranks on one GPU, {} can", version,
                                      nccl_version_text(kNcclSharesGpus)));
    }
    return {.way = JoinWay::nccl,
            .share_process = count_different(ranks, &JoinIdentity::process) < ranks.size(),
            .why = fmt::format("NCCL {} serves {} ranks on {} GPUs", version, ranks.size(), gpus)};
}

}  // namespace kvgrid::worker
