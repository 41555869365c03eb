#include <fmt/format.h>

#include "client/cli/demo/demo_acts.h"
#include "client/cli/replay/replay.h"
#include "client/cli/replay/replay_text.h"

namespace kvgrid::cli {

Status demo_replay(DemoStage& stage) {
    say("\n1. A real model's attention, replayed and checked\n");
    const ModelSpec spec = replay_spec(stage.trace, stage.plan.trace_dtype);
    const auto model = stage.client.register_model(
        spec, {.grid = stage.plan.grid, .pool_bytes_per_worker = stage.plan.trace_pool_bytes});
    if (!model) return model.error();

    Progress progress("replay", stage.trace.token_count(), stage.progress_style, stage.clock);
    const auto report =
        replay(stage.client, *model, stage.trace,
               {.progress = [&](int tokens_done) { progress.update(tokens_done); }, .interrupted = stage.interrupted});
    if (!report) return report.error();
    say(replay_text(*report));
    if (!report->passed()) return {Errc::internal, "the replayed outputs are not those of the model"};

    std::int64_t rows = 0;
    for (const ReplayLayer& layer : report->layers) rows += layer.from_reference.rows;
    stage.summary.emplace_back("trace replayed", fmt::format("{} tokens, {} layers of {}", stage.trace.token_count(),
                                                             report->layers.size(), stage.trace.model));
    stage.summary.emplace_back("rows checked", fmt::format("{}, twice, none outside its tolerance", rows));
    return {};
}

}  // namespace kvgrid::cli
