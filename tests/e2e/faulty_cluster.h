#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/local/child_process.h"
#include "client/cli/local/temporary_directory.h"
#include "client/kvgrid.h"

namespace kvgrid::e2e {

struct FaultyClusterOptions {
    int workers = 2;
    int standbys = 0;                         // ranks beyond those of the grid
    std::vector<std::string> worker_options;  // beside the usual ones
};

// A cluster whose processes a test may kill, stop and start again, one by one. Its end kills what is left.
class FaultyCluster {
  public:
    explicit FaultyCluster(const FaultyClusterOptions& options);
    ~FaultyCluster();

    Client connect(std::chrono::milliseconds timeout = std::chrono::seconds(30));
    ClusterStatus status();
    ClusterWorker worker(int rank);  // of the present grid

    void kill_coordinator();
    void start_coordinator();  // returns when the process runs, not when it listens
    std::vector<pid_t> worker_processes();
    // Whether mpirun ended by then, and with 0.
    bool workers_end_well(std::chrono::milliseconds timeout);

    std::string logs() const;
    const std::filesystem::path& directory() const { return directory_.path(); }

  private:
    void start_workers();

    const FaultyClusterOptions options_;
    cli::TemporaryDirectory directory_;
    const std::string endpoint_;
    std::optional<cli::ChildProcess> coordinator_;
    std::optional<cli::ChildProcess> workers_;
};

using Milliseconds = std::chrono::duration<double, std::milli>;

// Polls: what is waited for happens in other processes. How long it took, or nothing if the patience was over.
std::optional<Milliseconds> wait_until(std::chrono::milliseconds patience, const std::function<bool()>& condition);

}  // namespace kvgrid::e2e
