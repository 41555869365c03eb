#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "comm/rpc/endpoint.h"
#include "comm/rpc/io_thread.h"
#include "comm/wire/frame.h"
#include "core/clock.h"
#include "core/result.h"

namespace kvgrid::comm {

using ConnectionId = std::uint64_t;

// Answers one request, from any thread; a second answer is Fatal. Dropping it unanswered answers `internal`. Where the request
// wanted no reply (request number 0) answering does nothing.
class Responder {
  public:
    using Send = std::function<void(MessageType, std::string message, Payload payload)>;

    Responder() = default;
    explicit Responder(Send send) : send_(std::move(send)) {}
    Responder(Responder&& other) noexcept : send_(std::exchange(other.send_, nullptr)) {}
    Responder& operator=(Responder&& other) noexcept;
    ~Responder();

    void reply(MessageType type, std::string message, Payload payload = {});
    void fail(const Error& error);

  private:
    Send send_;
};

struct Request {
    Frame frame;
    ConnectionId connection = 0;
    Deadline deadline;              // arrival + the caller's time-out; far away if it set none
    std::int32_t peer_process = 0;  // of a Unix-domain socket, as this host's kernel knows it; else 0
};

struct ServerLimits {
    int connections_max = 1024;
    // Of one connection; while one of these is reached nothing more is read from it (back-pressure). A single request or answer may be
    // larger.
    int requests_in_flight_max = 64;
    std::size_t request_bytes_in_flight_max = std::size_t{256} << 20;
    std::size_t request_bytes_total_max = std::size_t{2}
                                          << 30;  // of all connections: each may have one request under way then
    std::size_t unsent_bytes_pause = std::size_t{64} << 20;  // of answers that the peer has not taken
    // Beyond these a reader is too slow and disconnected: one connection's answers, or, of those who share the total, the one with most.
    std::size_t unsent_bytes_max = std::size_t{512} << 20;
    std::size_t unsent_bytes_total_max = std::size_t{1} << 30;
    std::chrono::milliseconds frame_timeout{30'000};  // from a frame's first byte to its last
};

// What became of a request that wanted a reply.
struct Answered {
    MessageType request;
    std::optional<Errc> refused;    // nothing: it was done
    std::chrono::nanoseconds took;  // from the frame's arrival to here
};

// Of a server's connections, since it was made.
struct ConnectionCounters {
    std::uint64_t accepted = 0;
    std::uint64_t turned_away = 0;  // at connections_max
    std::uint64_t broken_off = 0;   // for what they sent, or were too slow to send
};

// Accepts connections and hands whole, checked frames to a handler, on the I/O thread.
class Server {
  public:
    struct Handlers {
        std::function<void(Request, Responder)> on_request;
        std::function<void(ConnectionId)> on_disconnect;  // after the connection's last request
        std::function<void(const Answered&)> on_answer = {};
    };

    Server(IoThread& io, Handlers handlers, ServerLimits limits = {});
    ~Server();  // closes everything; no handler runs afterwards. Not from the I/O thread.
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Opens a listener and returns the endpoint as bound (with its port). Refuses a non-loopback address unless `allow_remote`.
    // A Unix socket is for its owner only (mode 0600). A stale file is replaced; one that somebody listens on is refused. Several
    // listeners may be open.
    Result<Endpoint> listen(const Endpoint& endpoint, bool allow_remote = false);

    int connection_count() const;            // from any thread
    ConnectionCounters connections() const;  // likewise

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace kvgrid::comm
