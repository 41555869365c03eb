#include "comm/rpc/channel.h"

#include <algorithm>
#include <condition_variable>
#include <future>
#include <limits>
#include <mutex>
#include <optional>
#include <random>
#include <utility>

#include "comm/rpc/channel_impl.h"

namespace kvgrid::comm {
namespace {

// For the frame's header: rounded up, so that the server never gives up first.
std::uint32_t milliseconds_until(Deadline deadline) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    return static_cast<std::uint32_t>(std::clamp<std::int64_t>(left, 1, std::numeric_limits<std::uint32_t>::max()));
}

// Where a blocking call's result is awaited. (A std::promise makes a system call for each result, awaited or not.)
class Answer {
  public:
    void give(Result<Frame> result) {
        {
            const std::lock_guard lock(mutex_);
            result_ = std::move(result);
        }
        given_.notify_one();
    }
    bool is_there() {
        const std::lock_guard lock(mutex_);
        return result_.has_value();
    }
    std::optional<Result<Frame>> wait_until(Deadline deadline) {
        std::unique_lock lock(mutex_);
        given_.wait_until(lock, deadline, [this] { return result_.has_value(); });
        return std::exchange(result_, std::nullopt);
    }

  private:
    std::mutex mutex_;
    std::condition_variable given_;
    std::optional<Result<Frame>> result_;
};

Error is_busy(const Endpoint& endpoint, const std::string& why) {
    return {Errc::busy, "channel to " + endpoint.to_string() + ": " + why};
}

}  // namespace

Channel::Channel(IoThread& io, Endpoint endpoint, Options options)
    : impl_(std::make_shared<Impl>(io, std::move(endpoint), options)) {}

Channel::~Channel() {
    if (impl_->io.on_this_thread()) {
        impl_->close();
        return;
    }
    std::promise<void> closed;
    impl_->io.post([impl = impl_, &closed] {
        impl->close();
        closed.set_value();
    });
    closed.get_future().wait();
}

void Channel::call(MessageType type, std::uint64_t generation, std::string message, Payload payload, Deadline deadline,
                   Callback done) {
    Impl::Waiting call{{.type = type, .generation = generation}, std::move(message), std::move(payload), deadline};
    Status admitted = check_lengths(type, call.message.size(), call.payload.size());
    if (admitted.ok() && !impl_->admit_call()) {
        admitted =
            is_busy(impl_->endpoint, std::to_string(impl_->options.calls_in_flight_max) + " calls are under way");
    } else if (admitted.ok()) {
        admitted = impl_->admit_bytes(call.size());
        if (!admitted.ok()) --impl_->call_count;
    }
    if (!admitted.ok()) {
        return impl_->io.post([error = admitted.error(), done = std::move(done)] { done(error); });
    }
    impl_->io.impl().turn.expect();
    impl_->in_order([impl = impl_.get(), call = std::move(call), done = std::move(done)]() mutable {
        impl->begin_call(std::move(call), std::move(done));
    });
}

Result<Frame> Channel::call(MessageType type, std::uint64_t generation, std::string message, Payload payload,
                            Deadline deadline, const Watch& watch) {
    if (impl_->io.on_this_thread()) fatal("a blocking call on the I/O thread would wait for itself");
    const auto answer = std::make_shared<Answer>();  // the call may end after this wait for it
    bool begun = false;
    for (;;) {
        const Deadline next_look = deadline_in(watch.period);
        IoThread::StandIn here(impl_->io);
        if (!std::exchange(begun, true)) {
            call(type, generation, std::move(message), std::move(payload), deadline,
                 [answer](Result<Frame> result) { answer->give(std::move(result)); });
        }
        here.work_until([&] { return answer->is_there(); }, next_look);
        here.leave();
        if (auto result = answer->wait_until(next_look)) return std::move(*result);
        if (!watch.verdict) continue;
        if (auto error = watch.verdict()) return *error;
    }
}

Status Channel::post(MessageType type, std::uint64_t generation, std::string message, Payload payload) {
    Impl::Waiting frame{
        {.type = type, .generation = generation}, std::move(message), std::move(payload), Deadline::max()};
    if (auto lengths = check_lengths(type, frame.message.size(), frame.payload.size()); !lengths.ok()) return lengths;
    const std::uint64_t connection = impl_->connection;
    if (connection == 0) {
        impl_->io.post([impl = impl_] { impl->ensure_running(); });
        return {Errc::unavailable, "no connection to " + impl_->endpoint.to_string() + " now"};
    }
    if (auto admitted = impl_->admit_bytes(frame.size()); !admitted.ok()) return admitted;
    impl_->in_order([impl = impl_.get(), frame = std::move(frame), connection]() mutable {
        impl->begin_post(std::move(frame), connection);
    });
    return {};
}

void Channel::on_disconnect(std::function<void()> callback) {
    impl_->io.post([impl = impl_, callback = std::move(callback)]() mutable {
        if (!impl->closed) impl->on_disconnect = std::move(callback);
    });
}

const Endpoint& Channel::endpoint() const {
    return impl_->endpoint;
}

Channel::Impl::Impl(IoThread& io_thread, Endpoint target, Options given)
    : io(io_thread),
      endpoint(std::move(target)),
      options(given),
      deadline_timer(io.impl().context.get_executor()),
      backoff(options.backoff_min, options.backoff_max, std::random_device{}()),
      backoff_timer(io.impl().context.get_executor()),
      connect_watchdog(io.impl().context.get_executor()) {}

// The bound does not hold for a single frame, as in FrameStream.
Status Channel::Impl::admit_bytes(std::size_t size) {
    const std::size_t before = unsent_bytes->fetch_add(size);
    if (before == 0 || before + size <= options.unsent_bytes_max) return {};
    *unsent_bytes -= size;
    return is_busy(endpoint, std::to_string(before) + " bytes wait to be sent");
}

bool Channel::Impl::admit_call() {
    if (call_count.fetch_add(1) < options.calls_in_flight_max) return true;
    --call_count;
    return false;
}

// On the I/O thread at once, unless something that was posted before has not had its turn.
template <class Work>
void Channel::Impl::in_order(Work work) {
    if (io.on_this_thread() && posted_count == 0) return work();
    ++posted_count;
    io.post([self = shared_from_this(), work = std::make_shared<Work>(std::move(work))] {
        --self->posted_count;
        (*work)();
    });
}

// ---- calls, on the I/O thread

void Channel::Impl::begin_call(Waiting call, Callback done) {
    if (closed) {
        *unsent_bytes -= call.size();
        return end({std::move(done)}, Error{Errc::unavailable, "the channel is closed"});
    }
    call.header.request = pending.add(call.deadline, std::move(done));
    watch_deadlines();
    if (stream) return send(std::move(call));
    waiting.push_back(std::move(call));
    ensure_running();
}

void Channel::Impl::begin_post(Waiting frame, std::uint64_t over_connection) {
    if (over_connection == connection) return send(std::move(frame));
    *unsent_bytes -= frame.size();  // that connection was lost meanwhile, with everything on its way
}

void Channel::Impl::send_waiting() {
    while (!waiting.empty()) {
        Waiting frame = std::move(waiting.front());
        waiting.pop_front();
        send(std::move(frame));
    }
}

void Channel::Impl::send(Waiting frame) {
    *unsent_bytes -= frame.size();  // the stream counts them from here
    if (frame.header.request != 0) {
        frame.header.timeout_ms = milliseconds_until(frame.deadline);
        if (send_by_ring(frame)) return;
        pending.mark_sent(frame.header.request, PendingCalls::Call::Sent::by_socket);
        ++socket_calls;
    } else if (ring && frame.payload.size() == 0 && ring->send(frame.header, frame.message)) {
        return;
    }
    stream->send(frame.header, std::move(frame.message), std::move(frame.payload));
}

// Not past a call that is on its way through the socket: the server reads calls in their order.
bool Channel::Impl::send_by_ring(const Waiting& frame) {
    if (!ring || socket_calls > 0 || frame.payload.size() > 0 || !ring->send(frame.header, frame.message)) return false;
    pending.mark_sent(frame.header.request, PendingCalls::Call::Sent::by_ring);
    return true;
}

void Channel::Impl::end(PendingCalls::Call call, Result<Frame> result) {
    --call_count;
    if (call.sent == PendingCalls::Call::Sent::by_socket) --socket_calls;
    io.impl().turn.expect_no_more();
    call.done(std::move(result));
}

void Channel::Impl::end_all(std::vector<PendingCalls::Call> calls, const Error& error) {
    for (auto& call : calls) end(std::move(call), error);
}

void Channel::Impl::expire_calls() {
    watched_deadline = Deadline::max();
    auto expired = pending.take_expired(std::chrono::steady_clock::now());
    std::erase_if(waiting, [&](const Waiting& call) {
        if (pending.contains(call.header.request)) return false;
        *unsent_bytes -= call.size();
        return true;
    });
    watch_deadlines();
    for (auto& call : expired) {
        const Error error =
            call.sent != PendingCalls::Call::Sent::no
                ? Error{Errc::deadline_exceeded, "no answer from " + endpoint.to_string() + " in time"}
                : Error{Errc::unavailable, "no connection to " + endpoint.to_string() + " in time: " + connect_problem};
        end(std::move(call), error);
    }
}

// One timer for all calls. It is set again only for an earlier deadline: most calls end long before theirs, and the timer then
// fires for nothing once in a while.
void Channel::Impl::watch_deadlines() {
    const auto next = pending.next_deadline();
    if (!next || *next >= watched_deadline) return;
    watched_deadline = *next;
    deadline_timer.expires_at(*next);
    deadline_timer.async_wait([self = shared_from_this()](error_code error) {
        if (!error) self->expire_calls();
    });
}

void Channel::Impl::close() {
    closed = true;
    on_disconnect = nullptr;
    connection = 0;
    if (ring) ring->close();
    if (stream) stream->close();
    for (const Waiting& call : waiting) *unsent_bytes -= call.size();
    waiting.clear();
    deadline_timer.cancel();
    backoff_timer.cancel();
    connect_watchdog.stop();
    if (connecting != nullptr) connecting->close();
    end_all(pending.take_all(), {Errc::unavailable, "the channel to " + endpoint.to_string() + " is closed"});
}

}  // namespace kvgrid::comm
