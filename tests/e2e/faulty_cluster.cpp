#include "tests/e2e/faulty_cluster.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <thread>

#include "client/cli/local/open_mpi.h"
#include "client/cli/local/process_scan.h"
#include "client/cli/local/text_file.h"

namespace kvgrid::e2e {

namespace {

using namespace std::chrono_literals;

constexpr auto kPollInterval = 2ms;
constexpr auto kStartPatience = 60s;
constexpr std::uint64_t kMemoryBytes = std::uint64_t{64} << 20;  // of each worker

std::string beside_this(const std::string& program) {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path() / program;
}

}  // namespace

FaultyCluster::FaultyCluster(const FaultyClusterOptions& options)
    : options_(options),
      directory_(cli::TemporaryDirectory::make().value()),
      endpoint_("unix:" + (directory_.path() / "coordinator").string()) {
    start_coordinator();
    start_workers();
    const auto ready = wait_until(kStartPatience, [this] { return status().ready; });
    EXPECT_TRUE(ready) << status().not_ready_because << "\n" << logs();
}

FaultyCluster::~FaultyCluster() {
    if (::testing::Test::HasFailure()) std::printf("%s\n", logs().c_str());
    for (const pid_t process : worker_processes()) kill(process, SIGKILL);  // also a stopped one
    workers_.reset();
    coordinator_.reset();
    EXPECT_TRUE(cli::kill_processes_naming(directory_.path().string(), deadline_in(5s)).empty());
}

void FaultyCluster::start_coordinator() {
    coordinator_.emplace(cli::ChildProcess::start(
                             {.arguments = {beside_this("kvgrid-coordinator"), "--listen", endpoint_, "--state-dir",
                                            directory_.path() / "state", "--workers", std::to_string(options_.workers)},
                              .environment = {},
                              .log = directory_.path() / "coordinator.log"})
                             .value());
}

void FaultyCluster::kill_coordinator() {
    kill(coordinator_->process_id(), SIGKILL);
    EXPECT_TRUE(coordinator_->wait_until(deadline_in(10s)));
}

void FaultyCluster::start_workers() {
    std::vector<std::string> worker{beside_this("kvgrid-worker"),
                                    "--coordinator",
                                    endpoint_,
                                    "--listen",
                                    "unix:" + (directory_.path() / "worker-%r").string(),
                                    "--memory",
                                    std::to_string(kMemoryBytes),
                                    "--threads",
                                    "1",
                                    "--exit-with-parent"};
    worker.insert(worker.end(), options_.worker_options.begin(), options_.worker_options.end());
    const cli::MpirunJob job{.mpirun = cli::find_mpirun().value(),
                             .rank_count = options_.workers + options_.standbys,
                             .program = worker,
                             .temporary = directory_.path()};
    workers_.emplace(cli::ChildProcess::start({.arguments = cli::mpirun_arguments(job),
                                               .environment = cli::mpirun_environment(job, geteuid() == 0),
                                               .log = directory_.path() / "workers.log"})
                         .value());
}

Client FaultyCluster::connect(std::chrono::milliseconds timeout) {
    return Client::connect(endpoint_, {.timeout = timeout}).value();
}

ClusterStatus FaultyCluster::status() {
    auto client = Client::connect(endpoint_, {.timeout = 10s, .wait_until_ready = false}).value();
    return client.status().value();
}

ClusterWorker FaultyCluster::worker(int rank) {
    for (const ClusterWorker& worker : status().workers)
        if (worker.rank == rank) return worker;
    ADD_FAILURE() << "no worker has rank " << rank;
    return {};
}

std::vector<pid_t> FaultyCluster::worker_processes() {
    std::vector<pid_t> processes = cli::processes_naming(directory_.path().string());
    std::erase_if(processes, [this](pid_t process) {
        return process == coordinator_->process_id() || process == workers_->process_id();
    });
    return processes;
}

bool FaultyCluster::workers_end_well(std::chrono::milliseconds timeout) {
    return workers_->wait_until(deadline_in(timeout)) && workers_->how_it_ended() == "ended with exit status 0";
}

std::string FaultyCluster::logs() const {
    return cli::last_lines(directory_.path() / "coordinator.log", 40) + "\n" +
           cli::last_lines(directory_.path() / "workers.log", 60);
}

std::optional<Milliseconds> wait_until(std::chrono::milliseconds patience, const std::function<bool()>& condition) {
    const TimePoint start = std::chrono::steady_clock::now();
    while (!condition()) {
        if (std::chrono::steady_clock::now() - start > patience) return std::nullopt;
        std::this_thread::sleep_for(kPollInterval);
    }
    return std::chrono::steady_clock::now() - start;
}

}  // namespace kvgrid::e2e
