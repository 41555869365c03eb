#include "core/sharding.h"

#include <fmt/format.h>

#include <numeric>

namespace kvgrid {

namespace {

// The first KV head that maps to `head_part`: the smallest h with h * head_parts / kv_heads >= head_part.
int first_kv_head(const ModelSpec& spec, const GridShape& grid, int head_part) {
    const std::int64_t scaled = std::int64_t{head_part} * spec.kv_heads;
    return static_cast<int>((scaled + grid.head_parts - 1) / grid.head_parts);
}

// The finaliser of splitmix64. Ids that arrive in strides (two models opened in turn) still spread over all parts.
std::uint64_t mixed(std::uint64_t value) {
    value += 0x9e3779b97f4a7c15;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

}  // namespace

HeadRange kv_heads_of_part(const ModelSpec& spec, const GridShape& grid, int head_part) {
    if (head_part < 0 || head_part >= grid.head_parts) {
        fatal(fmt::format("head_part is {}: must be from 0 to {}", head_part, grid.head_parts - 1));
    }
    const int first = first_kv_head(spec, grid, head_part);
    return {first, first_kv_head(spec, grid, head_part + 1) - first};
}

HeadRange query_heads_of_part(const ModelSpec& spec, const GridShape& grid, int head_part) {
    const HeadRange kv_heads = kv_heads_of_part(spec, grid, head_part);
    return {kv_heads.first * spec.group(), kv_heads.count * spec.group()};
}

int kv_heads_per_part_max(const ModelSpec& spec, const GridShape& grid) {
    return kv_heads_of_part(spec, grid, 0).count;  // part 0 holds ceil(kv_heads / head_parts), and none holds more
}

int spread_of(SequenceId sequence, const GridShape& grid) {
    if (grid.sequence_parts < 1) fatal(fmt::format("sequence_parts is {}: must be at least 1", grid.sequence_parts));
    return static_cast<int>(mixed(sequence.value) % static_cast<std::uint64_t>(grid.sequence_parts));
}

GridShape default_grid_shape(const ModelSpec& spec, int workers) {
    if (workers < 1) fatal(fmt::format("workers is {}: must be at least 1", workers));
    const int head_parts = std::gcd(spec.kv_heads, workers);
    return {head_parts, workers / head_parts};
}

Result<GridShape> validated_grid_shape(const ModelSpec& spec, int workers, GridShape shape) {
    if (workers < 1) return {Errc::invalid_argument, fmt::format("workers is {}: must be at least 1", workers)};
    if (shape.head_parts == 0 && shape.sequence_parts == 0) return default_grid_shape(spec, workers);
    if (shape.head_parts < 1) {
        return {Errc::invalid_argument,
                fmt::format("head_parts is {}: must be at least 1, or 0 together with sequence_parts for the default",
                            shape.head_parts)};
    }
    if (shape.sequence_parts < 1) {
        return {Errc::invalid_argument,
                fmt::format("sequence_parts is {}: must be at least 1, or 0 together with head_parts for the default",
                            shape.sequence_parts)};
    }
    if (std::int64_t{shape.head_parts} * shape.sequence_parts != workers) {
        return {Errc::invalid_argument,
                fmt::format("head_parts x sequence_parts is {} x {}: must make up the {} workers", shape.head_parts,
                            shape.sequence_parts, workers)};
    }
    if (shape.head_parts > spec.kv_heads) {
        return {Errc::invalid_argument,
                fmt::format("head_parts is {}: must be at most the {} KV heads, so that every part holds one",
                            shape.head_parts, spec.kv_heads)};
    }
    return shape;
}

}  // namespace kvgrid
