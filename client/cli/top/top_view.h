#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/kvgrid.h"
#include "core/clock.h"

namespace kvgrid::cli {

// What `kvgrid top` knows at one moment.
struct TopSnapshot {
    TimePoint taken{};
    std::string coordinator;
    ClusterStatus status;
    std::optional<GridOccupancy> occupancy;  // nothing while the grid is not ready
    std::string problem;                     // why there is nothing newer; empty if there is no problem
};

struct TopRates {
    double operations = 0, join_bytes = 0;  // a second, as all of these
    double layer_calls = 0;                 // by the grid; several clients' calls that were merged count once
    double merged_layer_calls = 0;          // of clients, that shared one with another client's
};

// Between two snapshots of one generation; nothing where they are not, or a counter went back.
std::optional<TopRates> top_rates(const TopSnapshot& before, const TopSnapshot& now);

struct TopStyle {
    int columns = 80;
    int rows = 0;  // 0: as many as it takes
    bool color = false;
};

// A screen of lines, none wider or more than asked for; with bars of pages by state for each worker, where # is used, = shared, + reserved
// and . free.
std::vector<std::string> top_lines(const TopSnapshot& now, const std::optional<TopRates>& rates, const TopStyle& style);

// One line, for logs and pipes.
std::string top_line(const TopSnapshot& now, const std::optional<TopRates>& rates);

}  // namespace kvgrid::cli
