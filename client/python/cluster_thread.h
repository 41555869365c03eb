#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "client/cli/local/local_cluster.h"

namespace kvgrid::python {

// A cluster on this host with a thread of its own. The kernel ends the programs of a LocalCluster with the thread that started it, and threads of
// Python end when they like; this one lives as long as the cluster, and ends with the process however that ends.
//
//   Threads  any.
//   Forks    in a forked process the thread is missing: `stop` does nothing there, and the object must not be destroyed.
class ClusterThread {
  public:
    explicit ClusterThread(cli::LocalClusterOptions options);
    ~ClusterThread();
    ClusterThread(const ClusterThread&) = delete;
    ClusterThread& operator=(const ClusterThread&) = delete;

    bool is_another_process() const;  // than this one, which was forked

    // Whether it is ready, or why it is not; nothing: not yet, after so long.
    std::optional<Status> wait_until_started(std::chrono::milliseconds limit);
    void interrupt() { interrupted_ = true; }  // a start ends soon with an error

    std::string endpoint() const;  // once it has started
    std::string log_ends() const;
    Status stop();  // further calls answer the same

  private:
    void run();

    cli::LocalClusterOptions options_;
    const pid_t process_id_;
    std::atomic<bool> interrupted_ = false;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Status> started_;
    std::string endpoint_;
    std::optional<cli::LocalCluster> cluster_;
    bool stop_wanted_ = false;
    std::optional<Status> stopped_;
    std::thread thread_;
};

}  // namespace kvgrid::python
