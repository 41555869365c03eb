#pragma once

#include <cstdint>
#include <span>

#include "coordinator/grid.h"
#include "core/model_spec.h"
#include "core/result.h"
#include "core/sharding.h"

namespace kvgrid::coordinator {

// What is asked of a model's place: {0, 0} and 0 leave it to the coordinator.
struct PlacementRequest {
    GridShape shape{0, 0};
    std::uint64_t pool_bytes_per_worker = 0;
};

struct Placement {
    GridShape shape;
    std::uint64_t pool_bytes_per_worker = 0;
};

// How a new model is split over the members of a grid, and how much of each member's memory its pages get.
//
//   Input   assigned_bytes   of each worker, by the models that the grid has already
//   Errors  invalid_argument: the shape does not fit the workers or the spec. no_room: some worker has less memory left
//           than was asked for, or too little to hold a single token of this model.
Result<Placement> place_model(const ModelSpec& spec, std::span<const Member> members, std::uint64_t assigned_bytes,
                              const PlacementRequest& request);

}  // namespace kvgrid::coordinator
