#include "worker/join_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>
#include <tuple>
#include <utility>

#include "comm/collective/nccl/nccl_version.h"
#include "kernels/cuda/peer_exchange.h"

namespace kvgrid::worker {

namespace {

using comm::kNcclSharesGpus;
using comm::nccl_version_text;

using Place = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>;

std::size_t count_different(std::span<const JoinIdentity> ranks, const std::function<Place(const JoinIdentity&)>& of) {
    std::set<Place> different;
    for (const JoinIdentity& rank : ranks) different.insert(of(rank));
    return different.size();
}

// How many there are of each.
struct Counts {
    explicit Counts(std::span<const JoinIdentity> ranks)
        : hosts(count_different(ranks,
                                [](const JoinIdentity& one) {
                                    return Place{one.host, 0, 0};
                                })),
          gpus(count_different(ranks,
                               [](const JoinIdentity& one) {
                                   return Place{one.host, one.device, 0};
                               })),
          processes(count_different(ranks,
                                    [](const JoinIdentity& one) {
                                        return Place{one.host, 0, one.process};
                                    })),
          uses_of_gpus(count_different(ranks, [](const JoinIdentity& one) {
              return Place{one.host, one.device, one.process};
          })) {}

    std::size_t hosts, gpus, processes, uses_of_gpus;
};

JoinChoice over_hosts(std::string why) {
    return {.way = JoinWay::host, .why = std::move(why)};
}

// Whatever size they have.
JoinChoice choose_for_all_sizes(std::span<const JoinIdentity> ranks, const Counts& counts) {
    const auto oldest = std::ranges::min_element(ranks, {}, &JoinIdentity::nccl_version);
    if (oldest->nccl_version == 0)
        return over_hosts(fmt::format("rank {} was built without NCCL", oldest - ranks.begin()));
    const std::string version = nccl_version_text(static_cast<int>(oldest->nccl_version));
    if (counts.gpus < ranks.size() && oldest->nccl_version < kNcclSharesGpus) {
        return over_hosts(fmt::format("NCCL {} cannot serve several ranks on one GPU, {} can", version,
                                      nccl_version_text(kNcclSharesGpus)));
    }
    return {.way = JoinWay::nccl,
            .why = fmt::format("NCCL {} serves {} ranks on {} GPUs", version, ranks.size(), counts.gpus)};
}

}  // namespace

JoinChoice choose_join(std::span<const JoinIdentity> ranks) {
    if (ranks.size() == 1) return {.way = JoinWay::alone, .why = "the grid has one rank"};
    const auto on_cpu = std::ranges::find(ranks, 0u, &JoinIdentity::is_gpu);
    if (on_cpu != ranks.end()) return over_hosts(fmt::format("rank {} is on a CPU", on_cpu - ranks.begin()));
    const auto wishes = [&](JoinWish wish) { return std::ranges::find(ranks, wish, &JoinIdentity::wish); };
    if (const auto host = wishes(JoinWish::over_hosts); host != ranks.end())
        return over_hosts(fmt::format("rank {} was asked to", host - ranks.begin()));
    const Counts counts(ranks);
    if (counts.uses_of_gpus > counts.gpus && wishes(JoinWish::best) != ranks.end())
        return over_hosts("several processes share a GPU, which takes turns between them");
    JoinChoice choice = choose_for_all_sizes(ranks, counts);
    choice.pushes = counts.hosts == 1 && ranks.size() <= kernels::PeerMailbox::kRanksMax &&
                    wishes(JoinWish::gathered) == ranks.end();
    choice.share_process = counts.processes < ranks.size();
    return choice;
}

}  // namespace kvgrid::worker
