#include "client/cli/local/local_cluster.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "client/cli/local/open_mpi.h"
#include "client/cli/local/process_scan.h"
#include "client/cli/local/program_beside.h"
#include "client/cli/local/text_file.h"
#include "client/kvgrid.h"
#include "core/log.h"

namespace kvgrid::cli {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto kEndTimeout = 3s;   // of the workers, when they have drained
constexpr auto kStopTimeout = 5s;  // of mpirun, which asks them once more, and of the coordinator
constexpr auto kKillTimeout = 2s;
constexpr auto kPollInterval = 10ms;
constexpr auto kConnectTimeout = 500ms;  // of one attempt; between two of them the programs are looked at
constexpr int kTailLines = 15;

constexpr const char* kHttpListen = "127.0.0.1:0";  // the cluster's status names the ports
constexpr const char* kCoordinatorLog = "coordinator.log";
constexpr const char* kListening = "listening on ";  // in its log
constexpr const char* kWorkersLog = "workers.log";

std::string end_of(const std::filesystem::path& log) {
    return fmt::format("the end of {}:\n{}", log.string(), last_lines(log, kTailLines));
}

Error with_log(Errc code, const std::string& what, const std::filesystem::path& log) {
    return {code, what + "; " + end_of(log)};
}

Status check_child(std::optional<ChildProcess>& child, const char* name, const std::filesystem::path& log) {
    if (!child || child->running()) return {};
    return with_log(Errc::unavailable, fmt::format("{} {}", name, child->how_it_ended()), log);
}

bool passed(Deadline deadline) {
    return std::chrono::steady_clock::now() >= deadline;
}

Status check_not_interrupted(const LocalClusterOptions& options) {
    if (options.interrupted && options.interrupted())
        return {Errc::unavailable, "interrupted while the cluster started"};
    return {};
}

}  // namespace

Result<LocalCluster> LocalCluster::start(const LocalClusterOptions& options) {
    auto sockets = TemporaryDirectory::make();
    if (!sockets) return sockets.error();
    LocalCluster cluster(options, *std::move(sockets));
    cluster.state_dir_ = options.state_dir.empty() ? cluster.sockets_->path() : options.state_dir;
    cluster.endpoint_ = "unix:" + (cluster.sockets_->path() / "coordinator.sock").string();
    std::error_code error;
    std::filesystem::create_directories(cluster.state_dir_, error);
    if (error)
        return {Errc::invalid_argument,
                fmt::format("cannot make {}: {}", cluster.state_dir_.string(), error.message())};

    const Deadline deadline = deadline_in(options.start_timeout);
    if (Status started = cluster.start_coordinator(); !started) return started.error();
    if (Status listening = cluster.wait_until_listening(deadline); !listening) return listening.error();
    if (options.on_listening) options.on_listening(cluster);
    if (Status started = cluster.start_workers(); !started) return started.error();
    if (Status ready = cluster.wait_until_ready(deadline); !ready) return ready.error();
    return cluster;
}

LocalCluster::LocalCluster(LocalClusterOptions options, TemporaryDirectory sockets)
    : options_(std::move(options)), sockets_(std::make_unique<TemporaryDirectory>(std::move(sockets))) {}

LocalCluster::~LocalCluster() {
    if (Status stopped = stop(); !stopped) log_error(stopped.error().to_string());
}

Status LocalCluster::start_coordinator() {
    const auto program = program_in(options_.programs, "kvgrid-coordinator");
    if (!program) return program.error();
    std::vector<std::string> arguments{*program,
                                       "--http-listen",
                                       kHttpListen,
                                       "--state-dir",
                                       state_dir_,
                                       "--workers",
                                       std::to_string(options_.workers),
                                       "--log-level",
                                       options_.log_level,
                                       "--exit-with-parent"};
    for (const std::string& endpoint : options_.listen) arguments.insert(arguments.end(), {"--listen", endpoint});
    // Last: when it says so of this one, it listens on all of them.
    arguments.insert(arguments.end(), {"--listen", endpoint_});
    auto child = ChildProcess::start({.arguments = arguments, .environment = {}, .log = state_dir_ / kCoordinatorLog});
    if (!child) return child.error();
    coordinator_ = *std::move(child);
    return {};
}

Status LocalCluster::start_workers() {
    const auto program = program_in(options_.programs, "kvgrid-worker");
    if (!program) return program.error();
    const std::filesystem::path& sockets = sockets_->path();
    std::vector<std::string> worker{*program,
                                    "--coordinator",
                                    endpoint_,
                                    "--listen",
                                    "unix:" + (sockets / "worker-%r.sock").string(),
                                    "--http-listen",
                                    kHttpListen,
                                    "--memory",
                                    std::to_string(options_.memory_bytes_per_worker),
                                    "--threads",
                                    std::to_string(options_.threads_per_worker),
                                    "--drain-timeout-ms",
                                    std::to_string(options_.drain_timeout.count()),
                                    "--log-level",
                                    options_.log_level,
                                    "--exit-with-parent"};
    worker.insert(worker.end(), options_.worker_arguments.begin(), options_.worker_arguments.end());
    if (options_.one_process) {
        worker.insert(worker.end(), {"--ranks", std::to_string(options_.workers)});
        return take_workers(
            ChildProcess::start({.arguments = worker, .environment = {}, .log = state_dir_ / kWorkersLog}));
    }
    const auto mpirun = find_mpirun();
    if (!mpirun) return mpirun.error();
    const bool as_root = geteuid() == 0;
    if (as_root) log_info("running as root: mpirun is told that this is meant");
    const MpirunJob job{.mpirun = *mpirun, .rank_count = options_.workers, .program = worker, .temporary = sockets};
    return take_workers(ChildProcess::start({.arguments = mpirun_arguments(job),
                                             .environment = mpirun_environment(job, as_root),
                                             .log = state_dir_ / kWorkersLog}));
}

Status LocalCluster::take_workers(Result<ChildProcess> started) {
    if (!started) return started.error();
    workers_ = *std::move(started);
    return {};
}

const char* LocalCluster::workers_program() const {
    return options_.one_process ? "kvgrid-worker" : "mpirun";
}

Status LocalCluster::wait_until_listening(Deadline deadline) {
    const std::filesystem::path log = state_dir_ / kCoordinatorLog;
    for (;;) {
        if (file_has_line(log, kListening + endpoint_)) return {};
        if (Status running = check(); !running) return running;
        if (Status go_on = check_not_interrupted(options_); !go_on) return go_on;
        if (passed(deadline)) return with_log(Errc::deadline_exceeded, "the coordinator does not listen", log);
        std::this_thread::sleep_for(kPollInterval);
    }
}

Status LocalCluster::wait_until_ready(Deadline deadline) {
    for (;;) {
        const auto client = Client::connect(endpoint_, {.timeout = kConnectTimeout});
        if (client) return {};
        if (Status running = check(); !running) return running;
        if (Status go_on = check_not_interrupted(options_); !go_on) return go_on;
        if (passed(deadline)) {
            return with_log(Errc::deadline_exceeded, "the cluster is not ready: " + client.error().to_string(),
                            state_dir_ / kWorkersLog);
        }
        std::this_thread::sleep_for(kPollInterval);
    }
}

Status LocalCluster::revive_coordinator() {
    if (coordinator_ && coordinator_->running()) return {};
    // The line that it listens stands in the log already, from the last time.
    std::error_code error;
    const fs::path log = state_dir_ / kCoordinatorLog;
    fs::rename(log, log.string() + ".before", error);
    if (error) return {Errc::internal, fmt::format("cannot rename {}: {}", log.string(), error.message())};
    if (Status started = start_coordinator(); !started) return started;
    return wait_until_listening(deadline_in(options_.start_timeout));
}

Status LocalCluster::check() {
    if (Status running = check_child(coordinator_, "kvgrid-coordinator", state_dir_ / kCoordinatorLog); !running)
        return running;
    return check_child(workers_, workers_program(), state_dir_ / kWorkersLog);
}

std::vector<std::string> LocalCluster::listening() const {
    std::vector<std::string> endpoints = lines_after(state_dir_ / kCoordinatorLog, kListening);
    std::erase(endpoints, endpoint_);
    return endpoints;
}

std::string LocalCluster::log_ends() const {
    return end_of(state_dir_ / kCoordinatorLog) + "\n" + end_of(state_dir_ / kWorkersLog);
}

// The ranks are asked themselves: they end in order, and mpirun with them. Asked to end, mpirun would wait for a second twice.
void LocalCluster::ask_workers_to_end() {
    if (!workers_ || !workers_->running()) return;
    if (options_.one_process) return workers_->signal_group(SIGTERM);
    for (const pid_t process_id : processes_naming(mark())) {
        if (process_id == workers_->process_id()) continue;
        if (coordinator_ && process_id == coordinator_->process_id()) continue;
        kill(process_id, SIGTERM);
    }
}

Status LocalCluster::stop() {
    if (!sockets_) return {};
    std::string killed;
    // Workers first: they need not find out that their coordinator has gone.
    ask_workers_to_end();
    if (workers_ && !workers_->wait_until(deadline_in(options_.drain_timeout + kEndTimeout)))
        workers_->signal_group(SIGTERM);
    if (workers_ && !workers_->wait_until(deadline_in(kStopTimeout))) killed += std::string(" ") + workers_program();
    workers_.reset();  // kills
    if (coordinator_) coordinator_->signal_group(SIGTERM);
    if (coordinator_ && !coordinator_->wait_until(deadline_in(kStopTimeout))) killed += " kvgrid-coordinator";
    coordinator_.reset();

    const std::vector<pid_t> left = kill_processes_naming(mark(), deadline_in(kKillTimeout));
    sockets_.reset();
    if (!left.empty()) return {Errc::internal, fmt::format("processes {} could not be ended", fmt::join(left, ", "))};
    if (!killed.empty())
        return {Errc::deadline_exceeded, fmt::format("did not end in time and had to be killed:{}", killed)};
    return {};
}

}  // namespace kvgrid::cli
