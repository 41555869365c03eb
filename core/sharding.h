#pragma once

#include <cstdint>

#include "core/ids.h"
#include "core/model_spec.h"
#include "core/result.h"

namespace kvgrid {

// How one model's cache is split over the workers of a grid. Rank r is head part r / sequence_parts and sequence part
// r % sequence_parts, so the ranks whose outputs are merged are neighbours.
struct GridShape {
    int head_parts = 1;
    int sequence_parts = 1;

    int workers() const { return head_parts * sequence_parts; }
    int head_part(int rank) const { return rank / sequence_parts; }
    int sequence_part(int rank) const { return rank % sequence_parts; }
    int rank(int head_part, int sequence_part) const { return head_part * sequence_parts + sequence_part; }

    friend bool operator==(const GridShape&, const GridShape&) = default;
};

// A run of consecutive heads.
struct HeadRange {
    int first = 0;
    int count = 0;
};

// KV head h lives on head part h * head_parts / kv_heads (rounded down), so part p holds the heads that map to it:
// counts differ by at most one, and the parts need not divide the heads. Query heads follow their KV head.
// `head_part` is one of the grid's: anything else is a broken promise and throws Fatal.
HeadRange kv_heads_of_part(const ModelSpec& spec, const GridShape& grid, int head_part);
HeadRange query_heads_of_part(const ModelSpec& spec, const GridShape& grid, int head_part);

// The largest number of KV heads on one part: what a padded exchange must provide for.
int kv_heads_per_part_max(const ModelSpec& spec, const GridShape& grid);

// Where a sequence's first page lives, so that many short sequences do not all load part 0. The same in every
// process and version: ranks compute it apart.
int spread_of(SequenceId sequence, const GridShape& grid);

// The sequence part that holds page number `page` (tokens 64 * page ...) of every stream of a sequence.
inline int sequence_part_of_page(std::int64_t page, int spread, const GridShape& grid) {
    return static_cast<int>((page + spread) % grid.sequence_parts);
}

// As many head parts as divide both KV heads and workers; the rest are sequence parts. Fatal for no workers.
GridShape default_grid_shape(const ModelSpec& spec, int workers);

// The shape itself, or the default where both parts are 0. Refuses a shape whose parts do not make up the workers, or
// that leaves a head part without a KV head.
Result<GridShape> validated_grid_shape(const ModelSpec& spec, int workers, GridShape shape);

}  // namespace kvgrid
