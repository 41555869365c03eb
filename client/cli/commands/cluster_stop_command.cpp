#include <fmt/format.h>
#include <sys/types.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/cli/commands/cluster_commands.h"
#include "client/cli/local/process_scan.h"
#include "client/cli/local/state_directory.h"
#include "client/cli/progress.h"

namespace kvgrid::cli {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto kPollInterval = 20ms;
constexpr auto kKillTimeout = 5s;

struct StopOptions {
    LocalNameOptions which;
    int drain_timeout_ms = 30'000;
    bool keep_catalogue = false;
};

struct Stopped {
    bool was_running = false;
    bool killed = false;  // it did not end in time
};

bool wait_until_gone(const fs::path& state_dir, std::chrono::milliseconds timeout, const OutputOptions& output) {
    SteadyClock clock;
    Progress progress("stop, at the latest", timeout.count(), progress_style(output.quiet), clock);
    const TimePoint start = clock.now();
    const Deadline deadline = deadline_in(timeout);
    while (running_local_cluster(state_dir)) {
        if (std::chrono::steady_clock::now() >= deadline) return false;
        progress.update(std::min<std::int64_t>((clock.now() - start) / 1ms, timeout.count() - 1));
        std::this_thread::sleep_for(kPollInterval);
    }
    return true;
}

// Asks the keeper, which asks the workers to drain and then the coordinator; after the deadline nobody is asked.
Result<Stopped> stop(const StopOptions& options, const fs::path& state_dir, const OutputOptions& output) {
    Stopped stopped;
    auto record = running_local_cluster(state_dir);
    stopped.was_running = record.has_value();
    if (record) {
        kill(record->keeper, SIGTERM);
        stopped.killed = !wait_until_gone(state_dir, std::chrono::milliseconds(options.drain_timeout_ms), output);
        if (stopped.killed) kill(record->keeper, SIGKILL);  // the kernel ends the others with it
    } else {
        record = abandoned_local_cluster(state_dir);
    }
    if (!record || record->mark.empty()) return stopped;
    const auto left = kill_processes_naming(record->mark, deadline_in(kKillTimeout));
    if (left.empty()) return stopped;
    return {Errc::internal, fmt::format("processes {} could not be ended", fmt::join(left, ", "))};
}

void clean(const fs::path& state_dir, bool keep_catalogue) {
    std::error_code not_there;
    fs::remove(state_dir / "cluster.json", not_there);
    if (keep_catalogue) return;
    for (const char* file : {"catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm"})
        fs::remove(state_dir / file, not_there);
}

ExitCode run(CommandLine& line, const StopOptions& options) {
    const fs::path state_dir = local_state_dir(options.which.state_dir, options.which.name);
    const auto stopped = stop(options, state_dir, line.output);
    if (!stopped) return line.fail(stopped.error());
    if (is_state_dir(state_dir)) clean(state_dir, options.keep_catalogue);
    if (line.output.json) {
        print_json(
            "cluster.stop",
            {{"was_running", stopped->was_running}, {"killed", stopped->killed}, {"state_dir", state_dir.string()}});
    } else if (!stopped->was_running) {
        fmt::print("no cluster named {} runs on this host\n", options.which.name);
    } else {
        fmt::print("{}\n", stopped->killed ? "did not end in time and was killed" : "stopped");
    }
    return stopped->killed ? ExitCode::failed : ExitCode::done;
}

}  // namespace

void add_cluster_stop(CommandLine& line) {
    CLI::App& command =
        line.command(line.noun("cluster", ""), "stop", "stop the cluster on this host; what its memory held is gone");
    auto options = std::make_shared<StopOptions>();
    command
        .add_option("--drain-timeout-ms", options->drain_timeout_ms,
                    "how long it may take to end in order; it is killed then")
        ->check(CLI::Range(0, 3'600'000))
        ->capture_default_str();
    command.add_flag("--keep-catalogue", options->keep_catalogue,
                     "keep the models that were registered for the next start");
    add_local_name_options(line, command, options->which);
    line.on(command, [options, &line] { return run(line, *options); });
}

}  // namespace kvgrid::cli
