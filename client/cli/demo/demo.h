#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/demo/demo_plan.h"
#include "client/cli/progress.h"

namespace kvgrid::cli {

struct DemoOptions {
    std::filesystem::path trace;      // empty: the one that comes with kvgrid
    std::filesystem::path state_dir;  // for catalogue and logs; empty: a fresh one, removed at the end
    DemoWish wish;
    ProgressStyle progress_style = ProgressStyle::lines;
    std::function<bool()> interrupted;
};

// What was done, and its figure.
using DemoSummary = std::vector<std::pair<std::string, std::string>>;

// Starts a cluster of four workers on this host, shows what it does on standard output, and stops it, whatever happens.
Result<DemoSummary> run_demo(const DemoOptions& options);

}  // namespace kvgrid::cli
