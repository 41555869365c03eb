#pragma once

#include <functional>
#include <string>

#include "comm/http/http_server.h"

namespace kvgrid::comm {

// What a process tells of itself. All are asked on the HTTP server's I/O thread.
struct Monitored {
    std::string program;                     // "kvgrid-worker"
    std::function<std::string()> not_live;   // why it should be ended and started again; "": it lives
    std::function<std::string()> not_ready;  // why it takes no work now; "": it does
    std::function<std::string()> metrics;    // in Prometheus' text format
};

//   /live     200, or 503 and why not        /metrics  Prometheus' text format
//   /ready    200, or 503 and why not        /version  JSON
HttpRoutes monitor_routes(Monitored monitored);

}  // namespace kvgrid::comm
