#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/local/child_process.h"
#include "client/cli/local/temporary_directory.h"
#include "core/result.h"

namespace kvgrid::cli {

class LocalCluster;

struct LocalClusterOptions {
    int workers = 4;
    std::uint64_t memory_bytes_per_worker = std::uint64_t{1} << 30;
    int threads_per_worker = 0;      // 0: this host's cores shared among the workers
    bool one_process = false;        // the workers are threads of one process, and mpirun is not needed
    std::filesystem::path programs;  // the folder of kvgrid-coordinator and kvgrid-worker; empty: the running program's
    std::filesystem::path state_dir;  // for the catalogue and the logs; empty: a fresh one, removed at the end
    std::chrono::milliseconds start_timeout{30'000};  // until the cluster is ready
    std::chrono::milliseconds drain_timeout{10'000};  // for steps that are open when it is stopped
    std::string log_level = "info";                   // of the programs
    std::vector<std::string> listen;                  // where the coordinator listens besides its Unix-domain socket
    std::vector<std::string> worker_arguments;        // of kvgrid-worker, beside the usual ones
    // Told when the coordinator listens; the workers are not there yet. May be empty.
    std::function<void(const LocalCluster&)> on_listening;
    std::function<bool()> interrupted;  // asked while waiting; may be empty
};

// A coordinator and its workers on this host, for a demonstration or a test.
//
//     this process
//       |-- kvgrid-coordinator            coordinator.log
//       '-- mpirun                        workers.log; in one process: kvgrid-worker itself
//             '-- kvgrid-worker ...       all talk over Unix-domain sockets in a directory of this cluster alone;
//                                         metrics over HTTP on free loopback ports
//
//   Ends     by stop, by the destructor, and with the thread that started it, however that ends: the kernel then kills the
//            coordinator and mpirun, and the workers end with mpirun.
//   Threads  one at a time.
class LocalCluster {
  public:
    // Returns when the cluster is ready. not_found: a program is missing. Else the message has the last lines of the log.
    static Result<LocalCluster> start(const LocalClusterOptions& options);
    LocalCluster(LocalCluster&&) noexcept = default;
    LocalCluster& operator=(LocalCluster&&) = delete;
    ~LocalCluster();

    const std::string& endpoint() const { return endpoint_; }  // of the coordinator
    std::vector<std::string> listening() const;                // where it listens besides
    const std::filesystem::path& state_dir() const { return state_dir_; }

    // In the command line of each process of this cluster, and of no other.
    std::string mark() const { return sockets_ ? sockets_->path().string() : ""; }

    // Whether all programs run: which one does not, and the last lines of its log.
    Status check();
    bool workers_running() { return workers_ && workers_->running(); }

    // Starts the coordinator again where it has ended. The workers go on meanwhile and come back to it.
    Status revive_coordinator();

    // The last lines of both logs.
    std::string log_ends() const;

    // Asks all to end, waits for steps that are open (`drain_timeout`), and kills some seconds later whoever has not ended. An error says
    // what had to be killed or is still there. Further calls do nothing.
    Status stop();

  private:
    LocalCluster(LocalClusterOptions options, TemporaryDirectory sockets);
    Status start_coordinator();
    Status start_workers();
    Status wait_until_listening(Deadline deadline);
    Status wait_until_ready(Deadline deadline);
    void ask_workers_to_end();
    Status take_workers(Result<ChildProcess> started);
    const char* workers_program() const;

    LocalClusterOptions options_;
    std::unique_ptr<TemporaryDirectory> sockets_;  // none: stopped, or moved from
    std::filesystem::path state_dir_;
    std::string endpoint_;
    std::optional<ChildProcess> coordinator_;
    std::optional<ChildProcess> workers_;
};

}  // namespace kvgrid::cli
