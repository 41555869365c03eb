#include "coordinator/placement.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvgrid::coordinator {

namespace {

std::uint64_t unassigned_bytes(const Member& member, std::uint64_t assigned_bytes) {
    const std::uint64_t memory_bytes = member.process.memory_bytes;
    return memory_bytes - std::min(memory_bytes, assigned_bytes);
}

// One page of each stream of the fullest worker: with less, not even one token has room.
std::uint64_t pool_bytes_min(const ModelSpec& spec, const GridShape& shape) {
    return std::uint64_t{spec.page_bytes()} * spec.kv_layers().size() * kv_heads_per_part_max(spec, shape);
}

}  // namespace

Result<Placement> place_model(const ModelSpec& spec, std::span<const Member> members, std::uint64_t assigned_bytes,
                              const PlacementRequest& request) {
    auto shape = validated_grid_shape(spec, static_cast<int>(members.size()), request.shape);
    if (!shape) return shape.error();

    const Member& smallest = *std::min_element(
        members.begin(), members.end(),
        [](const Member& one, const Member& other) { return one.process.memory_bytes < other.process.memory_bytes; });
    const std::uint64_t left = unassigned_bytes(smallest, assigned_bytes);
    if (request.pool_bytes_per_worker > left) {
        return {Errc::no_room,
                fmt::format("model {} asks for {} bytes of each worker, and worker {} has {} of its {} left", spec.name,
                            request.pool_bytes_per_worker, smallest.worker.value, left, smallest.process.memory_bytes)};
    }
    const std::uint64_t pool_bytes = request.pool_bytes_per_worker != 0 ? request.pool_bytes_per_worker : left;
    const std::uint64_t needed = pool_bytes_min(spec, *shape);
    if (pool_bytes < needed) {
        return {Errc::no_room,
                fmt::format(
                    "model {} would get {} bytes of each worker (worker {} has {} of its {} left), and its first token "
                    "alone takes {}: ask for at least that, or give the workers more memory",
                    spec.name, pool_bytes, smallest.worker.value, left, smallest.process.memory_bytes, needed)};
    }
    return Placement{*shape, pool_bytes};
}

}  // namespace kvgrid::coordinator
