#include <limits>

#include "comm/rpc/channel_impl.h"
#include "comm/wire/messages.h"

namespace kvgrid::comm {
namespace {

constexpr std::chrono::milliseconds kConnectTimeout{3'000};  // of one attempt
constexpr std::chrono::milliseconds kFrameTimeout{30'000};

}  // namespace

void Channel::Impl::ensure_running() {
    if (running || closed) return;
    running = true;
    start(io.impl().context.get_executor(), run(shared_from_this()));
}

Task<> Channel::Impl::run(std::shared_ptr<Impl> channel) {
    do {
        co_await channel->wait_for_back_off();
        if (channel->closed) break;
        auto socket = co_await channel->connect();
        if (channel->closed) break;
        if (!socket.ok()) {
            channel->connect_problem = socket.error().message;
            channel->connect_not_before = std::chrono::steady_clock::now() + channel->backoff.next();
            continue;
        }
        channel->established(std::move(*socket));
        const Error why = co_await channel->read_replies();
        channel->lost(why);
    } while (!channel->closed && !channel->waiting.empty());
    channel->running = false;
}

Task<> Channel::Impl::wait_for_back_off() {
    if (std::chrono::steady_clock::now() >= connect_not_before) co_return;
    error_code cancelled;
    backoff_timer.expires_at(connect_not_before);
    co_await backoff_timer.async_wait(asio::redirect_error(use_task, cancelled));
}

Task<Result<Socket>> Channel::Impl::connect() {
    Socket socket(io.impl().context);
    error_code error;
    if (endpoint.is_unix()) {
        error = co_await connect_to(asio::local::stream_protocol::endpoint(endpoint.path), socket);
    } else {
        asio::ip::basic_resolver<asio::ip::tcp, Executor> resolver(io.impl().context);
        const auto addresses = co_await resolver.async_resolve(endpoint.host, std::to_string(endpoint.port),
                                                               asio::redirect_error(use_task, error));
        for (const auto& address : addresses) {
            error = co_await connect_to(address.endpoint(), socket);
            if (!error || closed) break;
        }
    }
    if (error) co_return Error{Errc::unavailable, error.message()};
    // Registered afresh: Asio would go on to wait for writability, as the connect did, and be woken whenever the server reads.
    const auto protocol = socket.local_endpoint(error).protocol();
    if (error) co_return Error{Errc::unavailable, error.message()};
    co_return Socket(io.impl().context, protocol, socket.release());
}

Task<error_code> Channel::Impl::connect_to(asio::generic::stream_protocol::endpoint address, Socket& socket) {
    socket = Socket(io.impl().context);
    connecting = &socket;
    connect_watchdog.start(kConnectTimeout, [self = shared_from_this()] {
        if (self->connecting != nullptr) self->connecting->close();
    });
    error_code error;
    co_await socket.async_connect(address, asio::redirect_error(use_task, error));
    connecting = nullptr;
    const bool timed_out = !connect_watchdog.running();
    connect_watchdog.stop();
    if (error && timed_out) co_return asio::error::timed_out;
    co_return error;
}

void Channel::Impl::established(Socket socket) {
    const FrameStream::Limits limits{std::numeric_limits<std::size_t>::max(),
                                     kFrameTimeout};  // admit_bytes() bounds them
    stream = std::make_shared<FrameStream>(std::move(socket), limits, unsent_bytes);
    connection = ++last_connection;
    // Until the server has answered something, it may be one that refuses connections: the next attempt waits.
    connect_not_before = std::chrono::steady_clock::now() + backoff.next();
    send_waiting();
}

// Hands replies to their calls until the connection ends; returns why it did.
Task<Error> Channel::Impl::read_replies() {
    const std::string server = "server " + endpoint.to_string() + ": ";
    for (;;) {
        auto frame = co_await stream->read();
        if (!frame.ok() && frame.error() == Errc::unavailable) {
            co_return Error{Errc::unavailable, server + "the connection broke (" + frame.error().message +
                                                   "): whether calls that waited were carried out is not known"};
        }
        if (!frame.ok()) co_return Error{frame.error().code, server + frame.error().message};
        const FrameHeader header = frame->header;
        if (is_request(header.type)) co_return Error{Errc::corrupt, server + name_of(header.type) + " is no answer"};

        Result<Frame> answer = std::move(*frame);
        if (header.type == MessageType::error) {
            auto reply = unpack<wire::ErrorReply>(*answer);
            answer = reply.ok() ? from_wire(*reply) : reply.error();
        }
        if (header.request == 0)
            co_return answer.ok() ? Error{Errc::corrupt, server + "an answer to no call"} : answer.error();
        backoff.reset();
        connect_not_before = {};
        auto call = pending.take(header.request);
        if (call) end(std::move(*call), std::move(answer));  // otherwise its deadline has passed
    }
}

void Channel::Impl::lost(const Error& why) {
    stream->close();
    stream.reset();
    if (closed) return;
    connection = 0;
    connect_problem = why.message;
    end_all(pending.take_sent(), why);
    if (on_disconnect) on_disconnect();
}

}  // namespace kvgrid::comm
