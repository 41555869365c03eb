#include <fmt/format.h>

#include <optional>

#include "client/cli/find_cluster.h"
#include "client/cli/interrupt.h"
#include "client/cli/local/local_cluster.h"
#include "client/cli/progress.h"
#include "client/cli/replay/replay.h"
#include "client/cli/replay/replay_text.h"

namespace kvgrid::cli {

namespace {

struct ReplayOptions {
    std::string file;
    int local_workers = 0;
    GridShape grid{0, 0};
    std::string dtype = "f32";
    std::string kv_dtype = "as_model";
};

Result<Client> connect(const ClusterCommand& command, const ReplayOptions& options, const InterruptWatch& watch,
                       std::optional<LocalCluster>& own) {
    if (options.local_workers == 0) return command.connect();
    auto started = LocalCluster::start(
        {.workers = options.local_workers, .state_dir = {}, .interrupted = [&watch] { return watch.interrupted(); }});
    if (!started) return started.error();
    own.emplace(*std::move(started));
    return Client::connect(own->endpoint());
}

Result<ReplayReport> replay_on(Client& client, const analysis::Trace& trace, const ReplayOptions& options,
                               ProgressStyle style, const InterruptWatch& watch) {
    const auto status = client.status();
    if (!status) return status.error();
    const ModelSpec spec = replay_spec(trace, *parse_dtype(options.dtype), *parse_kv_dtype(options.kv_dtype));
    const auto shape = validated_grid_shape(spec, status->expected_workers, options.grid);
    if (!shape) return shape.error();
    const auto model = client.register_model(
        spec, {.grid = *shape, .pool_bytes_per_worker = replay_pool_bytes(trace, spec.dtype, *shape)});
    if (!model) return model.error();

    SteadyClock clock;
    Progress progress("replay", trace.token_count(), style, clock);
    return replay(client, *model, trace,
                  {.progress = [&progress](int tokens_done) { progress.update(tokens_done); },
                   .interrupted = [&watch] { return watch.interrupted(); }});
}

ExitCode run(const ClusterCommand& command, const ReplayOptions& options) {
    const auto trace = analysis::read_trace(options.file);
    if (!trace) return command.fail(trace.error());
    InterruptWatch watch;
    std::optional<LocalCluster> own;
    auto client = connect(command, options, watch, own);
    const auto outcome = client ? replay_on(*client, *trace, options, progress_style(command.output().quiet), watch)
                                : Result<ReplayReport>(client.error());
    const Status stopped = own ? own->stop() : Status();
    if (watch.interrupted()) return ExitCode::interrupted;
    if (!outcome) return command.fail(outcome.error());
    fmt::print("{}", command.output().json ? replay_json(*outcome) : replay_text(*outcome));
    if (!stopped) return command.fail(stopped.error());
    return outcome->passed() ? ExitCode::done : ExitCode::failed;
}

}  // namespace

void add_trace_replay(CommandLine& line) {
    CLI::App& command = line.command(line.noun("trace", "recorded runs of real models"), "replay",
                                     "send a recorded run through the grid and check every answer");
    auto options = std::make_shared<ReplayOptions>();
    command.add_option("TRACE", options->file, "a safetensors file")->required()->type_name("FILE");
    command.add_option("--local", options->local_workers, "start a cluster of so many workers for this, and stop it")
        ->check(CLI::Range(1, 64))
        ->type_name("NUMBER");
    command.add_option("--head-parts", options->grid.head_parts, "parts that the KV heads are split into")
        ->type_name("NUMBER");
    command.add_option("--sequence-parts", options->grid.sequence_parts, "parts that the tokens are split into")
        ->type_name("NUMBER");
    command.add_option("--dtype", options->dtype, "of q, k, v and the cache")
        ->check(CLI::IsMember({"f32", "f16", "bf16"}))
        ->capture_default_str();
    command
        .add_option("--kv-dtype", options->kv_dtype, "of the cache: as q, k and v, or fp8_e4m3 (lossy, GPU workers)")
        ->check(CLI::IsMember({"as_model", "fp8_e4m3"}))
        ->capture_default_str();
    on_cluster(line, command, [options](const ClusterCommand& chosen) { return run(chosen, *options); });
}

}  // namespace kvgrid::cli
