#include <fmt/format.h>

#include <optional>

#include "client/cli/command_line.h"
#include "client/cli/interrupt.h"
#include "client/cli/local/local_cluster.h"
#include "client/cli/progress.h"
#include "client/cli/replay/replay.h"
#include "client/cli/replay/replay_text.h"

namespace kvgrid::cli {

namespace {

struct ReplayOptions {
    std::string file;
    std::string coordinator;
    int local_workers = 0;
    GridShape grid{0, 0};
    std::string dtype = "f32";
    bool json = false;
    bool quiet = false;
};

// The cluster that was named, or one of our own.
Result<std::string> find_cluster(const ReplayOptions& options, const InterruptWatch& watch,
                                 std::optional<LocalCluster>& own) {
    if (options.local_workers == 0) return options.coordinator;
    auto started = LocalCluster::start(
        {.workers = options.local_workers, .state_dir = {}, .interrupted = [&watch] { return watch.interrupted(); }});
    if (!started) return started.error();
    own.emplace(*std::move(started));
    return own->endpoint();
}

Result<ReplayReport> replay_on(const std::string& endpoint, const analysis::Trace& trace, const ReplayOptions& options,
                               const InterruptWatch& watch) {
    auto client = Client::connect(endpoint);
    if (!client) return client.error();
    const auto status = client->status();
    if (!status) return status.error();
    const ModelSpec spec = replay_spec(trace, *parse_dtype(options.dtype));
    const auto shape = validated_grid_shape(spec, status->expected_workers, options.grid);
    if (!shape) return shape.error();
    const auto model = client->register_model(
        spec, {.grid = *shape, .pool_bytes_per_worker = replay_pool_bytes(trace, spec.dtype, *shape)});
    if (!model) return model.error();

    SteadyClock clock;
    Progress progress("replay", trace.token_count(), progress_style(options.quiet), clock);
    return replay(*client, *model, trace,
                  {.progress = [&progress](int tokens_done) { progress.update(tokens_done); },
                   .interrupted = [&watch] { return watch.interrupted(); }});
}

ExitCode run(const ReplayOptions& options) {
    const auto trace = analysis::read_trace(options.file);
    if (!trace) return report(trace.error());
    InterruptWatch watch;
    std::optional<LocalCluster> own;
    const auto endpoint = find_cluster(options, watch, own);
    const auto outcome =
        endpoint ? replay_on(*endpoint, *trace, options, watch) : Result<ReplayReport>(endpoint.error());
    const Status stopped = own ? own->stop() : Status();
    if (watch.interrupted()) return ExitCode::interrupted;
    if (!outcome) return report(outcome.error());
    fmt::print("{}", options.json ? replay_json(*outcome) : replay_text(*outcome));
    if (!stopped) return report(stopped.error());
    return outcome->passed() ? ExitCode::done : ExitCode::failed;
}

}  // namespace

void add_trace_replay(CommandLine& line) {
    CLI::App& command = *line.noun("trace", "recorded runs of real models")
                             .add_subcommand("replay", "send a recorded run through the grid and check every answer");
    auto options = std::make_shared<ReplayOptions>();
    command.add_option("FILE", options->file, "the trace, a safetensors file")->required();
    auto* coordinator =
        command.add_option("--coordinator", options->coordinator, "the cluster: host:port or unix:/path");
    auto* local =
        command
            .add_option("--local", options->local_workers, "start a cluster of so many workers for this, and stop it")
            ->check(CLI::Range(1, 64));
    coordinator->excludes(local);
    command.add_option("--head-parts", options->grid.head_parts, "parts that the KV heads are split into");
    command.add_option("--sequence-parts", options->grid.sequence_parts, "parts that the tokens are split into");
    command.add_option("--dtype", options->dtype, "of q, k, v and the cache")
        ->check(CLI::IsMember({"f32", "f16", "bf16"}))
        ->capture_default_str();
    command.add_flag("--json", options->json, "the report as JSON");
    line.on(command, [options, &line] {
        if (options->coordinator.empty() && options->local_workers == 0) {
            throw CLI::ValidationError("--coordinator or --local", "one of them is needed: where is the grid?");
        }
        options->quiet = line.quiet;
        return run(*options);
    });
}

}  // namespace kvgrid::cli
