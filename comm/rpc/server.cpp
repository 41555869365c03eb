#include "comm/rpc/server.h"

#include <algorithm>
#include <future>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "comm/rpc/acceptors.h"
#include "comm/rpc/frame_stream.h"
#include "comm/rpc/ring_line.h"
#include "comm/wire/messages.h"
#include "core/log.h"

namespace kvgrid::comm {
namespace {

constexpr std::chrono::hours kNoTimeout{24 * 365};

struct Connection {
    Connection(ConnectionId number, std::shared_ptr<FrameStream> frames, Executor executor)
        : id(number), stream(std::move(frames)), resumed(executor) {}

    const ConnectionId id;
    const std::shared_ptr<FrameStream> stream;
    std::shared_ptr<RingLine> ring;  // if the peer shares one
    std::int32_t peer_process = 0;
    int requests_in_flight = 0;
    std::size_t request_bytes_in_flight = 0;
    bool paused = false;
    SteadyTimer resumed;  // never expires; cancelled when reading may go on
};
using ConnectionPtr = std::shared_ptr<Connection>;

std::int32_t peer_process_of(Socket& socket) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return 0;
    return peer.pid;
}

Error no_request(MessageType type) {
    return {Errc::corrupt, std::string(name_of(type)) + " is an answer, no request"};
}

void send_error(FrameStream& stream, std::uint64_t request, const Error& error) {
    stream.send({.type = MessageType::error, .request = request}, pack(to_wire(error)), {});
}

}  // namespace

Responder& Responder::operator=(Responder&& other) noexcept {
    if (this == &other) return *this;
    Responder dropped(std::move(*this));
    send_ = std::exchange(other.send_, nullptr);
    return *this;
}

Responder::~Responder() {
    if (send_) fail({Errc::internal, "the request was dropped without an answer"});
}

void Responder::reply(MessageType type, std::string message, Payload payload) {
    if (!send_) fatal("a request was answered twice");
    std::exchange(send_, nullptr)(type, std::move(message), std::move(payload));
}

void Responder::fail(const Error& error) {
    reply(MessageType::error, pack(to_wire(error)));
}

// Lives on the I/O thread, and until the last coroutine that serves one of its connections has ended. What other threads hold of it
// (responders) goes through the gate, which ~Server shuts.
struct Server::Impl : std::enable_shared_from_this<Server::Impl> {
    struct Gate {
        std::mutex mutex;
        Impl* open = nullptr;
    };
    struct Asked {
        ConnectionId connection;
        std::uint64_t request;
        std::size_t request_bytes;
        MessageType type;
        TimePoint arrival;
    };
    struct Answer {
        Asked to;
        MessageType type;
        std::string message;
        Payload payload;
    };

    Impl(IoThread& io_thread, Handlers given_handlers, ServerLimits given_limits)
        : io(io_thread), handlers(std::move(given_handlers)), limits(given_limits) {}

    Executor executor() const { return io.impl().context.get_executor(); }

    void add(Socket socket);
    void close_all();
    void handle(Connection& connection, Frame frame);
    Status share_ring(Connection& connection, const Frame& request);
    bool is_full(const Connection& connection) const;
    void release_request(const Asked& asked);
    void resume(Connection& connection) const;
    Responder responder_for(Connection& connection, const Frame& request, TimePoint arrival);
    void answer(Answer answer);
    void tell(const Answer& answer) const;
    void disconnect_slowest_reader();

    static Task<> serve(std::shared_ptr<Impl> server, ConnectionPtr connection);
    Task<Error> read_requests(Connection& connection);

    IoThread& io;
    Handlers handlers;
    const ServerLimits limits;
    const std::shared_ptr<Gate> gate = std::make_shared<Gate>();
    bool closed = false;
    const std::shared_ptr<Acceptors> acceptors =
        std::make_shared<Acceptors>(io, "a connection", [this](Socket socket) { add(std::move(socket)); });
    std::unordered_map<ConnectionId, ConnectionPtr> connections;
    const FrameStream::UnsentBytes unsent_bytes = std::make_shared<std::atomic<std::size_t>>(0);  // of all
    std::size_t request_bytes_in_flight = 0;  // of all, also of connections that are gone
    ConnectionId last_connection = 0;
    std::atomic<int> connection_count = 0;
    std::atomic<std::uint64_t> accepted = 0, turned_away = 0, broken_off = 0;
};

Server::Server(IoThread& io, Handlers handlers, ServerLimits limits)
    : impl_(std::make_shared<Impl>(io, std::move(handlers), limits)) {
    impl_->gate->open = impl_.get();
}

Server::~Server() {
    if (impl_->io.on_this_thread()) fatal("a Server was destroyed on its I/O thread");
    std::promise<void> closed;
    impl_->io.post([impl = impl_, &closed] {
        impl->close_all();
        closed.set_value();
    });
    closed.get_future().wait();
}

Result<Endpoint> Server::listen(const Endpoint& endpoint, bool allow_remote) {
    return impl_->acceptors->listen(endpoint, allow_remote);
}

int Server::connection_count() const {
    return impl_->connection_count;
}

ConnectionCounters Server::connections() const {
    return {impl_->accepted, impl_->turned_away, impl_->broken_off};
}

void Server::Impl::close_all() {
    {
        std::lock_guard lock(gate->mutex);
        gate->open = nullptr;
    }
    closed = true;
    handlers = {};
    acceptors->close();
    for (auto& [id, connection] : connections) {
        if (connection->ring) connection->ring->close();
        connection->stream->close();
        connection->resumed.cancel();
    }
}

// ---- connections

void Server::Impl::add(Socket socket) {
    const std::int32_t peer_process = peer_process_of(socket);
    const FrameStream::Limits stream_limits{limits.unsent_bytes_max, limits.frame_timeout};
    auto stream = std::make_shared<FrameStream>(std::move(socket), stream_limits, unsent_bytes);
    auto connection = std::make_shared<Connection>(++last_connection, stream, executor());
    connection->peer_process = peer_process;
    stream->on_fewer_unsent([server = this, held = std::weak_ptr(connection)] {
        if (const ConnectionPtr paused = held.lock()) server->resume(*paused);
    });
    if (static_cast<int>(connections.size()) >= limits.connections_max) {
        ++turned_away;
        send_error(*connection->stream, 0,
                   {Errc::busy, "all " + std::to_string(limits.connections_max) + " connections are taken"});
        connection->stream->close();
        return;
    }
    connections.emplace(connection->id, connection);
    ++connection_count;
    ++accepted;
    start(executor(), serve(shared_from_this(), connection));
}

Task<> Server::Impl::serve(std::shared_ptr<Impl> server, ConnectionPtr connection) {
    const Error end = co_await server->read_requests(*connection);
    if (end.code != Errc::unavailable && !server->closed) {
        ++server->broken_off;
        log_warn("closing a connection: " + end.to_string());
        send_error(*connection->stream, connection->stream->rejected_request(), end);
        co_await connection->stream->linger();
    }
    if (connection->ring) connection->ring->close();
    connection->stream->close();
    server->connections.erase(connection->id);
    --server->connection_count;
    if (server->handlers.on_disconnect) server->handlers.on_disconnect(connection->id);
}

// Hands requests to the handler until the connection ends; returns why it did.
Task<Error> Server::Impl::read_requests(Connection& connection) {
    while (!closed) {
        if (is_full(connection)) {
            error_code cancelled;
            connection.paused = true;
            connection.resumed.expires_at(Deadline::max());
            co_await connection.resumed.async_wait(asio::redirect_error(use_task, cancelled));
            connection.paused = false;
            continue;
        }
        auto frame = co_await connection.stream->read();
        if (!frame.ok()) co_return frame.error();
        if (closed) break;
        if (!is_request(frame->header.type)) co_return no_request(frame->header.type);
        if (connection.ring) connection.ring->look();  // what was sent before it
        if (frame->header.type == MessageType::look && frame->header.request == 0) continue;
        handle(connection, std::move(*frame));
    }
    co_return Error{Errc::unavailable, "the server is closed"};
}

void Server::Impl::handle(Connection& connection, Frame frame) {
    const FrameHeader header = frame.header;
    const TimePoint arrival = std::chrono::steady_clock::now();
    const Deadline deadline =
        header.timeout_ms == 0 ? arrival + kNoTimeout : arrival + std::chrono::milliseconds(header.timeout_ms);
    Responder responder = responder_for(connection, frame, arrival);
    if (header.type == MessageType::share_ring) {
        const Status shared = share_ring(connection, frame);
        return shared ? responder.reply(MessageType::empty, {}) : responder.fail(shared.error());
    }
    handlers.on_request({std::move(frame), connection.id, deadline, connection.peer_process}, std::move(responder));
}

Status Server::Impl::share_ring(Connection& connection, const Frame& request) {
    const auto message = unpack<wire::ShareMemoryRequest>(request);
    if (!message) return message.error();
    if (connection.peer_process == 0) {
        return {Errc::unsupported, "a ring can be shared over a Unix-domain socket of this host only"};
    }
    if (message->bytes() < FrameRing::bytes()) {
        return {Errc::invalid_argument,
                "a ring of " + std::to_string(message->bytes()) + " bytes: has " + std::to_string(FrameRing::bytes())};
    }
    auto region = SharedRegion::open(connection.peer_process, message->file(), message->bytes());
    if (!region) return region.error();
    const auto break_off = [this, &connection](const Error& error) {
        ++broken_off;
        log_warn("closing a connection: " + error.to_string());
        connection.ring->close();
        connection.stream->close();
    };
    const auto take = [this, &connection, break_off](Frame frame) {
        if (!is_request(frame.header.type)) return break_off(no_request(frame.header.type));
        handle(connection, std::move(frame));
    };
    if (connection.ring) connection.ring->close();
    connection.ring = std::make_shared<RingLine>(
        *std::move(region), FrameRing::Side::server, connection.stream,
        RingLine::Handlers{[this, &connection] { return !is_full(connection); }, take, break_off});
    io.impl().add(connection.ring);
    return {};
}

bool Server::Impl::is_full(const Connection& connection) const {
    const bool all_full = request_bytes_in_flight >= limits.request_bytes_total_max;
    return (all_full && connection.requests_in_flight > 0) ||
           connection.requests_in_flight >= limits.requests_in_flight_max ||
           connection.request_bytes_in_flight >= limits.request_bytes_in_flight_max ||
           connection.stream->unsent_bytes() >= limits.unsent_bytes_pause;
}

void Server::Impl::resume(Connection& connection) const {
    if (is_full(connection)) return;
    if (connection.paused) connection.resumed.cancel();
    if (connection.ring && connection.ring->holds_frame()) {
        asio::post(executor(), [held = connection.ring] { held->look(); });
    }
}

void Server::Impl::release_request(const Asked& asked) {
    const bool all_were_full = request_bytes_in_flight >= limits.request_bytes_total_max;
    request_bytes_in_flight -= asked.request_bytes;
    if (const auto found = connections.find(asked.connection); found != connections.end()) {
        Connection& connection = *found->second;
        --connection.requests_in_flight;
        connection.request_bytes_in_flight -= asked.request_bytes;
        resume(connection);
    }
    if (!all_were_full || request_bytes_in_flight >= limits.request_bytes_total_max) return;
    for (const auto& [id, connection] : connections) resume(*connection);
}

// ---- answers

Responder Server::Impl::responder_for(Connection& connection, const Frame& request, TimePoint arrival) {
    const Asked asked{connection.id, request.header.request, request.message.size() + request.payload.size(),
                      request.header.type, arrival};
    ++connection.requests_in_flight;
    connection.request_bytes_in_flight += asked.request_bytes;
    request_bytes_in_flight += asked.request_bytes;
    return Responder([held = gate, asked](MessageType type, std::string message, Payload payload) {
        Answer answer{asked, type, std::move(message), std::move(payload)};
        std::unique_lock lock(held->mutex);
        Impl* const impl = held->open;
        if (impl == nullptr) return;
        if (impl->io.on_this_thread()) {
            lock.unlock();  // only this thread shuts the gate
            return impl->answer(std::move(answer));
        }
        impl->io.post([self = impl->shared_from_this(), answer = std::move(answer)]() mutable {
            self->answer(std::move(answer));
        });
    });
}

void Server::Impl::answer(Answer answer) {
    release_request(answer.to);
    if (answer.to.request == 0) return;
    if (handlers.on_answer) tell(answer);
    const auto found = connections.find(answer.to.connection);
    if (found == connections.end()) return;
    Connection& connection = *found->second;
    if (auto lengths = check_lengths(answer.type, answer.message.size(), answer.payload.size()); !lengths.ok()) {
        log_error("an answer cannot be sent: " + lengths.error().message);
        return send_error(*connection.stream, answer.to.request,
                          {Errc::internal, "answer too long: " + lengths.error().message});
    }
    const FrameHeader header{.type = answer.type, .request = answer.to.request};
    if (connection.ring && answer.payload.size() == 0 && connection.ring->send(header, answer.message)) return;
    connection.stream->send_soon(header, std::move(answer.message), std::move(answer.payload));
    if (*unsent_bytes > limits.unsent_bytes_total_max) disconnect_slowest_reader();
}

void Server::Impl::disconnect_slowest_reader() {
    const auto unsent = [](const auto& entry) { return entry.second->stream->unsent_bytes(); };
    const auto slowest = std::ranges::max_element(connections, {}, unsent);
    log_warn("disconnecting the peer that reads most slowly: " + std::to_string(unsent(*slowest)) + " of the " +
             std::to_string(*unsent_bytes) + " bytes that wait for all peers are its; at most " +
             std::to_string(limits.unsent_bytes_total_max) + " may wait");
    slowest->second->stream->close();
}

void Server::Impl::tell(const Answer& answer) const {
    Answered told{answer.to.type, std::nullopt, std::chrono::steady_clock::now() - answer.to.arrival};
    if (answer.type == MessageType::error) {
        wire::ErrorReply reply;
        reply.ParseFromString(answer.message);  // it was packed here
        told.refused = from_wire(reply).code;
    }
    handlers.on_answer(told);
}

}  // namespace kvgrid::comm
