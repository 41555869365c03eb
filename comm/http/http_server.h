#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "comm/rpc/endpoint.h"
#include "comm/rpc/io_thread.h"
#include "core/result.h"

namespace kvgrid::comm {

struct HttpReply {
    int status = 200;
    std::string content_type = "text/plain; charset=utf-8";
    std::string body;
};

// By path ("/metrics"). Called on the I/O thread, once for each GET or HEAD.
using HttpRoutes = std::map<std::string, std::function<HttpReply()>>;

struct HttpLimits {
    int connections_max = 64;                          // beyond it: 503
    std::size_t header_bytes_max = 8 << 10;            // of a request; no request may have a body
    std::chrono::milliseconds request_timeout{5'000};  // from the first wait for a request's bytes to its last one
    std::chrono::milliseconds reply_timeout{10'000};   // until a reader has taken its reply
    std::chrono::milliseconds idle_timeout{
        60'000};  // between two requests of a connection: longer than scrapes are apart
};

// What people and Prometheus read of a process, over HTTP/1.1. Only GET and HEAD, only the paths given; whoever is slow, or sends what
// it should not, is disconnected. Nothing here changes anything, and nothing is secret from whoever may connect.
class HttpServer {
  public:
    HttpServer(IoThread& io, HttpRoutes routes, HttpLimits limits = {});
    ~HttpServer();  // closes everything; no route is called afterwards. Not from the I/O thread.
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;

    // As Server::listen: the endpoint as bound, loopback only unless `allow_remote`.
    Result<Endpoint> listen(const Endpoint& endpoint, bool allow_remote = false);

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace kvgrid::comm
