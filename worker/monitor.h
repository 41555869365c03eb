#pragma once

#include <functional>
#include <optional>

#include "comm/http/http_server.h"
#include "worker/metrics.h"

namespace kvgrid::worker {

// A worker's HTTP side: /metrics, /live, /ready and /version. On a thread of its own, so that a scrape never stands in the way of the
// data requests of the I/O thread; that one is asked for its state, and one that does not answer is reported as such.
class WorkerMonitor {
  public:
    struct Sources {
        comm::IoThread& io;                // the worker's, not this one's
        std::function<NodeState()> state;  // on `io`
        const comm::Server& server;
        const WorkerMetrics& metrics;
        std::function<std::uint64_t()> abandoned_mpi_requests;  // from any thread; may be empty
    };
    explicit WorkerMonitor(Sources sources);

    Result<comm::Endpoint> listen(const comm::Endpoint& endpoint, bool allow_remote);

  private:
    std::optional<NodeState> ask() const;
    std::string not_live() const;
    std::string not_ready() const;
    std::string metrics() const;

    const Sources sources_;
    comm::IoThread io_;
    comm::HttpServer server_;
};

}  // namespace kvgrid::worker
