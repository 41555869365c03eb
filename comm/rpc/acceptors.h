#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/rpc/asio_impl.h"
#include "comm/rpc/listener.h"

namespace kvgrid::comm {

// Where a server's connections come from: its listening sockets, and a loop for each that takes what comes. For the .cpp files that know Asio.
//
//   Threads  listen() from any; all else happens on the I/O thread.
//   Ends     with close(): then nothing is accepted any more. The loops keep this object until they have seen it.
class Acceptors : public std::enable_shared_from_this<Acceptors> {
  public:
    // `what`: of one, for the log, as in "an HTTP connection". `accepted` is called until close().
    Acceptors(IoThread& io, const char* what, std::function<void(Socket)> accepted);

    // As open_listener; the endpoint as bound.
    Result<Endpoint> listen(const Endpoint& endpoint, bool allow_remote);
    void close();

  private:
    struct Listening {
        std::shared_ptr<Acceptor> acceptor;
        SocketFile file;
    };

    static Task<> accept_loop(std::shared_ptr<Acceptors> acceptors, std::shared_ptr<Acceptor> acceptor);

    IoThread& io_;
    const char* const what_;
    std::function<void(Socket)> accepted_;
    bool closed_ = false;
    std::vector<Listening> listening_;
};

}  // namespace kvgrid::comm
