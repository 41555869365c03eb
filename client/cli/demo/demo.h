#pragma once

#include <filesystem>
#include <functional>

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

// Starts a cluster of four workers on this host, shows what it does, and stops it, whatever happens.
Status run_demo(const DemoOptions& options);

}  // namespace kvgrid::cli
