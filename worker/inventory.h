#pragma once

#include <cstdint>
#include <vector>

#include "core/ids.h"
#include "core/sharding.h"

namespace kvgrid::worker {

// What a grid holds, as far as every rank knows it alike; each list by id.
struct Inventory {
    struct Model {
        ModelId id;
        ModelSpec spec;
        GridShape grid;
        std::uint64_t pool_bytes = 0;
    };
    struct Sequence {
        SequenceId id;
        ModelId model;
        std::int64_t length = 0;  // committed tokens
        bool step_open = false;
    };

    std::vector<Model> models;
    std::vector<Sequence> sequences;
};

// Of ids, lengths and open steps; below 2^62. Two ranks that hold the same have the same.
std::int64_t digest(const Inventory& inventory);

}  // namespace kvgrid::worker
