#include "comm/rpc/acceptors.h"

#include <string>
#include <utility>

#include "core/log.h"

namespace kvgrid::comm {

namespace {

constexpr std::chrono::milliseconds kAcceptRetry{100};

}  // namespace

Acceptors::Acceptors(IoThread& io, const char* what, std::function<void(Socket)> accepted)
    : io_(io), what_(what), accepted_(std::move(accepted)) {}

Result<Endpoint> Acceptors::listen(const Endpoint& endpoint, bool allow_remote) {
    auto listener = open_listener(endpoint, allow_remote);
    if (!listener.ok()) return listener.error();
    const int family = listener->endpoint.is_unix() ? AF_UNIX : 0;
    auto acceptor = std::make_shared<Acceptor>(io_.impl().context.get_executor());
    acceptor->assign(asio::generic::stream_protocol(family, 0), listener->fd.release());
    auto file = std::make_shared<SocketFile>(std::move(listener->file));
    io_.post([self = shared_from_this(), acceptor, file] {
        if (self->closed_) return;
        self->listening_.push_back({acceptor, std::move(*file)});
        start(self->io_.impl().context.get_executor(), accept_loop(self, acceptor));
    });
    return listener->endpoint;
}

void Acceptors::close() {
    closed_ = true;
    accepted_ = {};
    for (Listening& listener : listening_) listener.acceptor->close();
    listening_.clear();
}

Task<> Acceptors::accept_loop(std::shared_ptr<Acceptors> acceptors, std::shared_ptr<Acceptor> acceptor) {
    while (!acceptors->closed_) {
        error_code error;
        Socket socket = co_await acceptor->async_accept(asio::redirect_error(use_task, error));
        if (acceptors->closed_) break;
        if (!error) {
            acceptors->accepted_(std::move(socket));
        } else if (error != asio::error::connection_aborted) {
            log_error("cannot accept " + std::string(acceptors->what_) + ": " + error.message());
            SteadyTimer pause(acceptors->io_.impl().context.get_executor(),
                              kAcceptRetry);  // descriptors or memory are short: do not spin
            co_await pause.async_wait(asio::redirect_error(use_task, error));
        }
    }
}

}  // namespace kvgrid::comm
