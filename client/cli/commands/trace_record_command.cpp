#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>

#include "client/cli/find_cluster.h"
#include "client/cli/interrupt.h"
#include "client/cli/local/local_cluster.h"
#include "client/cli/monitor/trace_recording.h"

namespace kvgrid::cli {

namespace {

struct RecordOptions {
    int steps = 1;
    bool own_steps = false;
    int wait_ms = 30'000;
    int local_workers = 0;
    std::string file;
};

Result<Client> connect(const ClusterCommand& command, const RecordOptions& options, const InterruptWatch& watch,
                       std::optional<LocalCluster>& own) {
    if (options.local_workers == 0) return command.connect();
    auto started = LocalCluster::start(
        {.workers = options.local_workers, .state_dir = {}, .interrupted = [&watch] { return watch.interrupted(); }});
    if (!started) return started.error();
    own.emplace(*std::move(started));
    return Client::connect(own->endpoint());
}

Status write(const RecordedTrace& trace, const RecordOptions& options, bool quiet) {
    if (options.file.empty()) {
        fmt::print("{}", trace.json);
        return {};
    }
    std::ofstream file(options.file, std::ios::binary);
    file << trace.json;
    file.close();
    if (!file) return {Errc::invalid_argument, fmt::format("cannot write {}: {}", options.file, std::strerror(errno))};
    if (!quiet)
        fmt::print(stderr, "{} spans in {}: open it at https://ui.perfetto.dev or chrome://tracing\n", trace.span_count,
                   options.file);
    return {};
}

ExitCode run(const ClusterCommand& command, const RecordOptions& options) {
    InterruptWatch watch;
    std::optional<LocalCluster> own;
    auto client = connect(command, options, watch, own);
    const auto recorded = client ? record_trace(*client, {.steps = options.steps,
                                                          .own_steps = options.own_steps || options.local_workers > 0,
                                                          .timeout = std::chrono::milliseconds(options.wait_ms),
                                                          .interrupted = [&watch] { return watch.interrupted(); }})
                                 : Result<RecordedTrace>(client.error());
    const Status stopped = own ? own->stop() : Status();
    if (!recorded) return watch.interrupted() ? ExitCode::interrupted : command.fail(recorded.error());
    if (recorded->dropped > 0)
        fmt::print(stderr, "kvgrid: {} spans are missing: record fewer steps\n", recorded->dropped);
    if (Status written = write(*recorded, options, command.output().quiet); !written)
        return command.fail(written.error());
    if (!stopped) return command.fail(stopped.error());
    return watch.interrupted() ? ExitCode::interrupted : ExitCode::done;
}

}  // namespace

void add_trace_record(CommandLine& line) {
    CLI::App& command = line.command(line.noun("trace", ""), "record",
                                     "where the time of single steps goes, for chrome://tracing and ui.perfetto.dev");
    auto options = std::make_shared<RecordOptions>();
    command.add_option("--steps", options->steps, "record so many steps: the next ones that anybody runs")
        ->check(CLI::Range(1, 10'000))
        ->type_name("NUMBER")
        ->capture_default_str();
    command.add_flag(
        "--own-steps", options->own_steps,
        "run the steps here, in a small model of their own (at most 64), and record the client's side as well");
    command.add_option("--wait-ms", options->wait_ms, "how long to wait for the steps")
        ->check(CLI::Range(1, 600'000))
        ->type_name("MS")
        ->capture_default_str();
    command
        .add_option("--local", options->local_workers,
                    "start a cluster of so many workers for this, with steps of its own, and stop it")
        ->check(CLI::Range(1, 64))
        ->type_name("NUMBER");
    command.add_option("--output", options->file, "write there, not to standard output")->type_name("FILE");
    on_cluster(line, command, [options](const ClusterCommand& chosen) { return run(chosen, *options); });
}

}  // namespace kvgrid::cli
