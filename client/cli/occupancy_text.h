#pragma once

#include <cstdint>
#include <string>

#include "client/kvgrid.h"

namespace kvgrid::cli {

// "in use by worker: 45% 45% 23% 23%", of one model's pages, by rank; reserved pages count as used.
std::string occupancy_line(const GridOccupancy& occupancy, ModelId model);

// A table of one model's pages, a line for each worker.
std::string occupancy_table(const GridOccupancy& occupancy, ModelId model);

struct PageTotals {
    std::uint64_t capacity = 0, free = 0, used = 0, shared = 0;
};
PageTotals page_totals(const GridOccupancy& occupancy, ModelId model);  // of all workers

// Whether no worker holds a page of any model: every one came back.
bool all_free(const GridOccupancy& occupancy);

}  // namespace kvgrid::cli
