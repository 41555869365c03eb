#include "client/cli/demo/demo.h"

#include <fmt/format.h>

#include <cstdio>

#include "client/cli/demo/available_memory.h"
#include "client/cli/demo/demo_acts.h"
#include "client/cli/local/local_cluster.h"
#include "client/cli/local/process_scan.h"
#include "client/cli/local/worker_gpus.h"
#include "core/units.h"

namespace kvgrid::cli {

namespace {

using Act = Status (*)(DemoStage&);
using Seconds = std::chrono::duration<double>;

constexpr const char* kTraceName = "smollm2_135m_instruct.safetensors";

// In this folder or one above it.
std::optional<std::filesystem::path> find_trace_above(std::filesystem::path folder) {
    std::error_code error;
    for (; folder.has_relative_path(); folder = folder.parent_path()) {
        for (const char* place : {"tests/data", "share/kvgrid"}) {
            if (std::filesystem::exists(folder / place / kTraceName, error)) return folder / place / kTraceName;
        }
    }
    return std::nullopt;
}

// Beside this program, built or installed, or in the tree that the user is in.
Result<std::filesystem::path> find_trace() {
    std::error_code error;
    for (const auto& folder :
         {std::filesystem::read_symlink("/proc/self/exe", error).parent_path(), std::filesystem::current_path(error)}) {
        if (auto found = find_trace_above(folder)) return *std::move(found);
    }
    return {Errc::not_found,
            fmt::format("no {} above this program or this folder: name a trace with --trace", kTraceName)};
}

Result<analysis::Trace> load_trace(const std::filesystem::path& named) {
    if (!named.empty()) return analysis::read_trace(named);
    const auto found = find_trace();
    if (!found) return found.error();
    return analysis::read_trace(*found);
}

Result<DemoSummary> run_acts(const DemoOptions& options, const DemoPlan& plan, const analysis::Trace& trace,
                             const std::string& endpoint, const Clock& clock) {
    auto client = Client::connect(endpoint, {.timeout = std::chrono::seconds(60)});
    if (!client) return client.error();
    DemoStage stage{*client, plan, trace, options.progress_style, clock, options.interrupted, {}, {}, {}};
    for (const Act act : {demo_replay, demo_long_context, demo_fork}) {
        if (Status done = act(stage); !done) return done.error();
    }
    return std::move(stage.summary);
}

// Ends the cluster, and looks whether it did.
Status stop(LocalCluster& cluster) {
    const std::string mark = cluster.mark();
    if (Status stopped = cluster.stop(); !stopped) return stopped;
    if (const auto left = processes_naming(mark); !left.empty())
        return {Errc::internal, fmt::format("{} processes of the cluster are still there", left.size())};
    return {};
}

void print_summary(const DemoSummary& summary) {
    say("\n4. What was done\n");
    for (const auto& [what, figure] : summary) say(fmt::format("  {:<20} {}\n", what, figure));
}

}  // namespace

void say(const std::string& text) {
    fmt::print("{}", text);
    std::fflush(stdout);
}

Status DemoStage::check_not_interrupted() const {
    if (interrupted && interrupted()) return {Errc::unavailable, "interrupted"};
    return {};
}

Result<DemoSummary> run_demo(const DemoOptions& options) {
    SteadyClock clock;
    const TimePoint start = clock.now();
    const auto trace = load_trace(options.trace);
    if (!trace) return trace.error();
    const auto gpus = worker_gpus();
    if (!gpus) return gpus.error();
    DemoWish wish = options.wish;
    wish.gpus = static_cast<int>(gpus->size());
    const DemoPlan plan = plan_demo(*trace, wish, available_memory_bytes());

    auto cluster = LocalCluster::start({.workers = plan.grid.workers(),
                                        .memory_bytes_per_worker = plan.memory_per_worker(),
                                        .one_process = plan.one_process,
                                        .state_dir = options.state_dir,
                                        .interrupted = options.interrupted});
    if (!cluster) return cluster.error();
    say(fmt::format(
        "Started 1 coordinator and {} workers with {} each: {} head parts x {} sequence parts, on {}, in {:.1f} s\n"
        "  to look at it meanwhile: kvgrid top --coordinator {}\n",
        plan.grid.workers(), format_bytes(plan.memory_per_worker()), plan.grid.head_parts, plan.grid.sequence_parts,
        gpus->empty() ? "this host's CPU" : gpus->front(), Seconds(clock.now() - start).count(), cluster->endpoint()));
    auto summary = run_acts(options, plan, *trace, cluster->endpoint(), clock);
    if (!summary) {
        const bool wanted = options.interrupted && options.interrupted();
        const std::string logs = wanted ? "" : "\n" + cluster->log_ends();
        if (Status stopped = stop(*cluster); !stopped) return stopped.error();
        return {summary.error().code, summary.error().message + logs};
    }
    if (Status stopped = stop(*cluster); !stopped) return stopped.error();
    summary->emplace_back("stopped", "the coordinator and all workers; none is left");
    summary->emplace_back("total time", fmt::format("{:.1f} s", Seconds(clock.now() - start).count()));
    print_summary(*summary);
    return summary;
}

}  // namespace kvgrid::cli
