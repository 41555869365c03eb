#include "comm/collective/thread_world.h"

#include <algorithm>
#include <random>

#include "comm/collective/thread_collective.h"

namespace kvgrid::comm {

namespace {

std::uint64_t random_id() {
    std::random_device device;
    std::uint64_t id = 0;
    while (id == 0) id = static_cast<std::uint64_t>(device()) << 32 | device();
    return id;
}

}  // namespace

ThreadWorld::ThreadWorld(int size) : size_(size), id_(random_id()) {
    if (size < 1) fatal("a world of " + std::to_string(size) + " ranks");
}

Result<std::unique_ptr<Collective>> ThreadWorld::form(int self, const std::vector<int>& world_ranks,
                                                      Generation generation) {
    const auto found = std::ranges::find(world_ranks, self);
    if (found == world_ranks.end()) {
        return {Errc::internal,
                "world rank " + std::to_string(self) + " was asked to form a collective without itself"};
    }
    const std::lock_guard lock(mutex_);
    if (generation < latest_) {
        return {Errc::stale_generation, "generation " + std::to_string(generation.value) + " is over: generation " +
                                            std::to_string(latest_.value) + " is forming"};
    }
    if (latest_ < generation) {
        latest_ = generation;
        forming_ = {world_ranks, make_thread_collectives(static_cast<int>(world_ranks.size()), generation)};
    }
    auto& mine = forming_.collectives[static_cast<std::size_t>(found - world_ranks.begin())];
    if (forming_.world_ranks != world_ranks || !mine) {
        return {Errc::internal, "generation " + std::to_string(generation.value) +
                                    " is formed of other ranks, or world rank " + std::to_string(self) +
                                    " has it already"};
    }
    return std::move(mine);
}

}  // namespace kvgrid::comm
