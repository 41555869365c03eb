#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/cli/commands/cluster_commands.h"
#include "client/cli/interrupt.h"
#include "client/cli/local/child_process.h"
#include "client/cli/local/state_directory.h"
#include "client/cli/local/text_file.h"
#include "client/cli/local/worker_gpus.h"
#include "client/cli/progress.h"
#include "client/kvgrid.h"
#include "core/units.h"

namespace kvgrid::cli {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto kPollInterval = 20ms;
constexpr auto kStatusTimeout = 200ms;
constexpr auto kStopTimeout = 30s;  // of a keeper that was interrupted; it has deadlines of its own
constexpr const char* kKeeperLog = "keeper.log";

struct StartOptions {
    LocalNameOptions which;
    std::string listen;
    int workers = 0;
    std::string memory;
    int threads = 0;
    bool one_process = false;
};

void print_record(const LocalClusterRecord& record, const fs::path& state_dir, bool already,
                  const OutputOptions& output) {
    if (output.json) {
        return print_json("cluster.start", {{"already_running", already},
                                            {"endpoint", record.endpoint},
                                            {"listen", record.listen},
                                            {"state_dir", state_dir.string()},
                                            {"workers", record.workers},
                                            {"memory_bytes_per_worker", record.memory_bytes_per_worker},
                                            {"keeper_process_id", record.keeper}});
    }
    fmt::print("{}: {} workers of {} each\n", already ? "runs already" : "started", record.workers,
               format_bytes(record.memory_bytes_per_worker));
    for (const std::string& endpoint : record.listen) fmt::print("coordinator  {}\n", endpoint);
    fmt::print("coordinator  {}\nstate        {}\n", record.endpoint, state_dir.string());
}

// It is there already, as asked for or otherwise.
ExitCode answer_running(CommandLine& line, const StartOptions& options, const LocalClusterRecord& running,
                        std::uint64_t memory_bytes, const fs::path& state_dir) {
    if (running.workers == options.workers && running.memory_bytes_per_worker == memory_bytes) {
        print_record(running, state_dir, true, line.output);
        return ExitCode::done;
    }
    return line.fail({Errc::wrong_state,
                      fmt::format("cluster {} runs already, with {} workers of {} each: stop it first, or give another "
                                  "--cluster (and --listen)",
                                  options.which.name, running.workers, format_bytes(running.memory_bytes_per_worker))},
                     fmt::format("kvgrid cluster stop --cluster {}", options.which.name));
}

Result<ChildProcess> start_keeper(const StartOptions& options, std::uint64_t memory_bytes, const fs::path& state_dir) {
    std::error_code error;
    fs::rename(state_dir / kKeeperLog, state_dir / (std::string(kKeeperLog) + ".before"), error);
    const fs::path self = fs::read_symlink("/proc/self/exe", error);
    if (error) return {Errc::internal, "cannot read /proc/self/exe: " + error.message()};
    std::vector<std::string> arguments{self,
                                       "cluster",
                                       "keep",
                                       "--json",
                                       "--state-dir",
                                       state_dir,
                                       "--workers",
                                       std::to_string(options.workers),
                                       "--memory-bytes",
                                       std::to_string(memory_bytes),
                                       "--threads",
                                       std::to_string(options.threads),
                                       "--listen",
                                       options.listen};
    if (options.one_process) arguments.emplace_back("--one-process");
    return ChildProcess::start(
        {.arguments = std::move(arguments), .environment = {}, .log = state_dir / kKeeperLog, .outlives_caller = true});
}

Errc code_named(const std::string& name) {
    for (int code = 1; code < static_cast<int>(Errc::internal); ++code) {
        if (name == name_of(Errc{code})) return Errc{code};
    }
    return Errc::internal;
}

// What the keeper said last, as an error with its code.
Error keeper_error(const ChildProcess& keeper, const fs::path& state_dir) {
    const fs::path log = state_dir / kKeeperLog;
    const auto said = nlohmann::json::parse(last_lines(log, 1), nullptr, false);
    if (said.is_object() && said.value("format", "") == "kvgrid.error")
        return {code_named(said.value("code", "")), said.value("message", "")};
    return {Errc::internal,
            fmt::format("the keeper {}; the end of {}:\n{}", keeper.how_it_ended(), log.string(), last_lines(log, 10))};
}

// Steps done: the coordinator, each worker, and the grid that they form.
std::int64_t steps_done(const LocalClusterRecord& record) {
    if (record.endpoint.empty()) return 0;
    auto client = Client::connect(record.endpoint, {.timeout = kStatusTimeout, .wait_until_ready = false});
    const auto status = client ? client->status() : client.error();
    return 1 + (status ? static_cast<std::int64_t>(status->workers.size()) : 0);
}

Result<LocalClusterRecord> wait_until_ready(ChildProcess& keeper, const StartOptions& options,
                                            const fs::path& state_dir, const OutputOptions& output) {
    InterruptWatch watch;
    SteadyClock clock;
    Progress progress("start", options.workers + 2, progress_style(output.quiet), clock);
    while (keeper.running()) {
        const auto record = running_local_cluster(state_dir);
        if (record && record->ready && record->keeper == keeper.process_id()) {
            progress.update(options.workers + 2);
            return *record;
        }
        if (watch.interrupted()) {
            keeper.signal_group(SIGTERM);
            keeper.wait_until(deadline_in(kStopTimeout));
            return {Errc::unavailable, "interrupted; what was started has been stopped"};
        }
        if (record && progress.is_due())
            progress.update(std::min<std::int64_t>(steps_done(*record), options.workers + 1));
        std::this_thread::sleep_for(kPollInterval);
    }
    return keeper_error(keeper, state_dir);
}

// As processes they would take turns on it.
void advise_one_process(const StartOptions& options, const OutputOptions& output) {
    if (output.quiet || options.one_process) return;
    const auto gpus = worker_gpus();
    if (!must_share_gpus(options.workers, gpus)) return;
    fmt::print(
        stderr,
        "note: {} workers share {} GPU{}, which takes turns between their processes: --one-process is far faster\n",
        options.workers, gpus->size(), gpus->size() == 1 ? "" : "s");
}

ExitCode run(CommandLine& line, const StartOptions& options) {
    const fs::path state_dir = local_state_dir(options.which.state_dir, options.which.name);
    const auto memory_bytes = parse_bytes(options.memory);
    if (!memory_bytes) return line.fail(memory_bytes.error());
    if (const Status good = prepare_state_dir(state_dir); !good) return line.fail(good.error());
    if (const auto running = running_local_cluster(state_dir))
        return answer_running(line, options, *running, *memory_bytes, state_dir);

    advise_one_process(options, line.output);
    auto keeper = start_keeper(options, *memory_bytes, state_dir);
    if (!keeper) return line.fail(keeper.error());
    const auto record = wait_until_ready(*keeper, options, state_dir, line.output);
    if (!record) return line.fail(record.error(), "kvgrid doctor");
    keeper->release();
    print_record(*record, state_dir, false, line.output);
    return ExitCode::done;
}

}  // namespace

void add_cluster_start(CommandLine& line) {
    CLI::App& command =
        line.command(line.noun("cluster", ""), "start",
                     "start a coordinator and workers on this host, which go on when this command ends");
    auto options = std::make_shared<StartOptions>();
    line.settings.add(command, "local.workers", options->workers);
    line.settings.add(command, "local.memory", options->memory);
    line.settings.add(command, "local.threads", options->threads);
    line.settings.add(command, "local.one_process", options->one_process);
    line.settings.add(command, "local.listen", options->listen);
    add_local_name_options(line, command, options->which);
    line.on(command, [options, &line] { return run(line, *options); });
}

}  // namespace kvgrid::cli
