#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "analysis/trace.h"
#include "client/cli/demo/demo_plan.h"
#include "client/cli/progress.h"
#include "client/kvgrid.h"

namespace kvgrid::cli {

// What the acts of the demonstration share.
struct DemoStage {
    Client& client;
    const DemoPlan& plan;
    const analysis::Trace& trace;
    ProgressStyle progress_style;
    const Clock& clock;
    std::function<bool()> interrupted;

    // Left by one act for a later one.
    std::optional<RegisteredModel> long_model;
    std::optional<Sequence> context;
    std::vector<std::pair<std::string, std::string>> summary;  // what was done, and its figure

    Status check_not_interrupted() const;
};

// Each prints what it does and finds on standard output, and fails if anything is not as promised.

// Replays the trace and checks every row.
Status demo_replay(DemoStage& stage);

// Fills a long context, decodes from it, and checks the first decoded token against fp64 attention over the whole of it.
Status demo_long_context(DemoStage& stage);

// Forks the context, extends both branches by different tokens, closes them, and looks whether every page came back.
Status demo_fork(DemoStage& stage);

// Standard output, at once.
void say(const std::string& text);

}  // namespace kvgrid::cli
