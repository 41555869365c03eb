#pragma once

#include <memory>

#include "comm/http/http_server.h"
#include "comm/rpc/server.h"
#include "coordinator/coordinator.h"
#include "coordinator/metrics.h"

namespace kvgrid::coordinator {

// Answers one request: `unsupported` if it is none of a coordinator's. On the I/O thread.
void serve(Coordinator& coordinator, comm::Request request, comm::Responder responder);

// A coordinator with its listeners and its clock's ticks.
class CoordinatorServer {
  public:
    CoordinatorServer(comm::IoThread& io, std::unique_ptr<Coordinator> coordinator);
    ~CoordinatorServer();  // not from the I/O thread
    CoordinatorServer(const CoordinatorServer&) = delete;
    CoordinatorServer& operator=(const CoordinatorServer&) = delete;

    // As comm::Server's.
    Result<comm::Endpoint> listen(const comm::Endpoint& endpoint, bool allow_remote) {
        return server_->listen(endpoint, allow_remote);
    }

    // For /metrics, /live, /ready and /version.
    Result<comm::Endpoint> listen_http(const comm::Endpoint& endpoint, bool allow_remote);

  private:
    comm::IoThread& io_;
    CoordinatorMetrics metrics_;
    std::unique_ptr<Coordinator> coordinator_;
    std::unique_ptr<comm::Server> server_;
    std::unique_ptr<comm::HttpServer> http_;
    std::shared_ptr<comm::IoThread::Timer> ticks_;
};

}  // namespace kvgrid::coordinator
