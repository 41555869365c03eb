#include <limits>

#include "comm/rpc/channel_impl.h"
#include "comm/wire/messages.h"
#include "core/log.h"

namespace kvgrid::comm {
namespace {

constexpr std::chrono::milliseconds kConnectTimeout{3'000};  // of one attempt
constexpr std::chrono::milliseconds kFrameTimeout{30'000};
constexpr std::chrono::milliseconds kRingTimeout{10'000};

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
    if (options.ring && endpoint.is_unix()) share_ring();
}

// Where it cannot be shared, the socket serves as well.
void Channel::Impl::share_ring() {
    auto region = SharedRegion::make(FrameRing::bytes());
    if (!region) return;
    wire::ShareMemoryRequest request;
    request.set_file((*region)->file());
    request.set_bytes((*region)->bytes().size());
    Waiting call{{.type = MessageType::share_ring}, pack(request), {}, deadline_in(kRingTimeout)};
    *unsent_bytes += call.size();
    ++call_count;
    io.impl().turn.expect();
    const std::weak_ptr<FrameStream> asked = stream;
    begin_call(std::move(call), [this, asked, region = *std::move(region)](const Result<Frame>& reply) {
        if (reply && !asked.expired() && asked.lock() == stream) open_ring(region);
    });
}

void Channel::Impl::open_ring(std::shared_ptr<SharedRegion> region) {
    const auto answer = [this](Frame frame) {
        if (const auto error = take_answer(std::move(frame))) {
            log_warn(error->to_string());
            ring->close();
            stream->close();
        }
    };
    const auto corrupt = [this](const Error& error) {
        log_warn(of_server(error.code, error.message).to_string());
        stream->close();
    };
    ring = std::make_shared<RingLine>(std::move(region), FrameRing::Side::client, stream,
                                      RingLine::Handlers{[] { return true; }, answer, corrupt});
    io.impl().add(ring);
}

Error Channel::Impl::of_server(Errc code, const std::string& what) const {
    return {code, "server " + endpoint.to_string() + ": " + what};
}

// Hands replies to their calls until the connection ends; returns why it did.
Task<Error> Channel::Impl::read_replies() {
    for (;;) {
        auto frame = co_await stream->read();
        if (!frame.ok() && frame.error() == Errc::unavailable) {
            co_return of_server(Errc::unavailable, "the connection broke (" + frame.error().message +
                                                       "): whether calls that waited were carried out is not known");
        }
        if (!frame.ok()) co_return of_server(frame.error().code, frame.error().message);
        if (frame->header.type == MessageType::look) {
            if (ring) ring->look();
            continue;
        }
        if (auto error = take_answer(std::move(*frame))) co_return *error;
    }
}

// Gives it to its call; or says what is wrong with it.
std::optional<Error> Channel::Impl::take_answer(Frame frame) {
    const FrameHeader header = frame.header;
    if (is_request(header.type)) return of_server(Errc::corrupt, name_of(header.type) + std::string(" is no answer"));

    Result<Frame> answer = std::move(frame);
    if (header.type == MessageType::error) {
        auto reply = unpack<wire::ErrorReply>(*answer);
        answer = reply.ok() ? from_wire(*reply) : reply.error();
    }
    if (header.request == 0) return answer.ok() ? of_server(Errc::corrupt, "an answer to no call") : answer.error();
    backoff.reset();
    connect_not_before = {};
    auto call = pending.take(header.request);
    if (call) end(std::move(*call), std::move(answer));  // otherwise its deadline has passed
    return std::nullopt;
}

void Channel::Impl::lost(const Error& why) {
    if (ring) ring->close();
    ring.reset();
    stream->close();
    stream.reset();
    if (closed) return;
    connection = 0;
    connect_problem = why.message;
    end_all(pending.take_sent(), why);
    if (on_disconnect) on_disconnect();
}

}  // namespace kvgrid::comm
