#include "client/cli/commands/cluster_commands.h"
#include "client/cli/interrupt.h"
#include "client/cli/local/cluster_keeper.h"

namespace kvgrid::cli {

namespace {

struct KeepOptions {
    std::string state_dir;
    LocalClusterOptions cluster;
};

ExitCode run(CommandLine& line, const KeepOptions& options) {
    InterruptWatch watch;
    LocalClusterOptions cluster = options.cluster;
    cluster.interrupted = [&watch] { return watch.interrupted(); };
    const Status kept = keep_cluster(options.state_dir, cluster);
    return kept ? ExitCode::done : line.fail(kept.error());
}

}  // namespace

void add_cluster_keep(CommandLine& line) {
    CLI::App& command =
        line.command(line.noun("cluster", ""), "keep", "the process that `kvgrid cluster start` leaves");
    command.group("");  // nobody's to type
    auto options = std::make_shared<KeepOptions>();
    command.add_option("--state-dir", options->state_dir)->required();
    command.add_option("--workers", options->cluster.workers)->required();
    command.add_option("--memory-bytes", options->cluster.memory_bytes_per_worker)->required();
    command.add_option("--threads", options->cluster.threads_per_worker)->required();
    command.add_flag("--one-process", options->cluster.one_process);
    command.add_option("--listen", options->cluster.listen);
    line.on_without_config(command, [options, &line] { return run(line, *options); });
}

}  // namespace kvgrid::cli
