#include "comm/rpc/frame_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/log.h"

namespace kvgrid::comm {
namespace {

constexpr std::size_t kMessageStepBytes = 64 << 10;
constexpr std::size_t kPayloadAlignment = 64;
constexpr int kFlushRounds = 16;             // writes in a row before other handlers get their turn
constexpr std::size_t kGatheredFrames = 16;  // per write
constexpr std::chrono::milliseconds kLingerTime{1'000};

// Memory that nobody has touched: pages that the peer never fills are never committed.
std::shared_ptr<std::byte> allocate_untouched(std::size_t count) {
    const std::size_t rounded = (count + kPayloadAlignment - 1) / kPayloadAlignment * kPayloadAlignment;
    auto* bytes = static_cast<std::byte*>(std::aligned_alloc(kPayloadAlignment, rounded));
    return bytes == nullptr ? nullptr : std::shared_ptr<std::byte>(bytes, [](std::byte* held) { std::free(held); });
}

}  // namespace

void Watchdog::start(std::chrono::milliseconds wait, std::function<void()> expire) {
    deadline_ = deadline_in(wait);
    timer_.expires_at(*deadline_);
    timer_.async_wait([this, expire = std::move(expire)](error_code error) {
        // stop() may have come after this handler was queued, and another start() too.
        if (error || !deadline_ || std::chrono::steady_clock::now() < *deadline_) return;
        deadline_.reset();
        expire();
    });
}

void Watchdog::stop() {
    if (!deadline_) return;
    deadline_.reset();
    timer_.cancel();
}

FrameStream::FrameStream(Socket socket, Limits limits, UnsentBytes unsent_bytes)
    : socket_(std::move(socket)),
      writable_(socket_.get_executor()),
      limits_(limits),
      shared_unsent_bytes_(std::move(unsent_bytes)),
      frame_watchdog_(socket_.get_executor()),
      write_watchdog_(socket_.get_executor()) {
    error_code ignored;  // a socket that is already broken says so at the first read
    const auto local = socket_.local_endpoint(ignored);
    if (local.protocol().family() != AF_UNIX) {
        socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
        socket_.set_option(asio::socket_base::keep_alive(true), ignored);
    }
    socket_.non_blocking(true, ignored);
}

FrameStream::~FrameStream() {
    close();
}

void FrameStream::close() {
    if (closed_) return;
    closed_ = true;
    error_code ignored;
    socket_.close(ignored);
    writable_.close(ignored);
    frame_watchdog_.stop();
    write_watchdog_.stop();
    forget_unsent();
}

void FrameStream::forget_unsent() {
    queue_.clear();
    *shared_unsent_bytes_ -= unsent_bytes_;
    unsent_bytes_ = 0;
    if (on_fewer_unsent_) on_fewer_unsent_();
}

// ---- reading

Task<Result<Frame>> FrameStream::read() {
    while (buffered().size() < kFrameHeaderBytes) {
        if (auto received = co_await receive({}); !received.ok()) co_return received.error();
    }
    const auto header_bytes = buffered().first<kFrameHeaderBytes>();
    auto header = decode(header_bytes);
    if (!header.ok()) {
        rejected_request_ = request_in(header_bytes);
        co_return header.error();
    }
    begin_ += kFrameHeaderBytes;
    inside_frame_ = true;
    rejected_request_ = header->request;

    Frame frame;
    frame.header = *header;
    if (header->message_bytes > 0) {
        if (auto read = co_await read_message(frame.message, header->message_bytes); !read.ok()) co_return read.error();
    }
    if (header->payload_bytes > 0) {
        auto payload = co_await read_payload(header->payload_bytes);
        if (!payload.ok()) co_return payload.error();
        frame.payload = std::move(*payload);
    }
    inside_frame_ = false;
    frame_watchdog_.stop();
    co_return std::move(frame);
}

// A string fills what it allocates, so it grows only as bytes arrive.
Task<Status> FrameStream::read_message(std::string& message, std::size_t count) {
    while (message.size() < count) {
        const std::size_t filled = message.size();
        message.resize(std::min(count, filled + std::max(filled, kMessageStepBytes)));
        auto read = co_await receive_all(std::as_writable_bytes(std::span(message)).subspan(filled));
        if (!read.ok()) co_return read;
    }
    co_return Status{};
}

Task<Result<Payload>> FrameStream::read_payload(std::size_t count) {
    const std::shared_ptr<std::byte> memory = allocate_untouched(count);
    if (memory == nullptr) {
        co_return Error{Errc::no_room,
                        "no memory for a payload of " + std::to_string(count) + " bytes; send less at once"};
    }
    const std::span<std::byte> bytes(memory.get(), count);
    if (auto read = co_await receive_all(bytes); !read.ok()) co_return read.error();
    co_return Payload(memory, bytes);
}

Task<Status> FrameStream::receive_all(std::span<std::byte> target) {
    target = target.subspan(take_buffered(target));
    while (!target.empty()) {
        auto received = co_await receive(target);
        if (!received.ok()) co_return received.error();
        target = target.subspan(*received);
    }
    co_return Status{};
}

std::size_t FrameStream::take_buffered(std::span<std::byte> target) {
    const std::size_t count = std::min(target.size(), buffered().size());
    if (count > 0) std::memcpy(target.data(), buffered().data(), count);
    begin_ += count;
    return count;
}

// Waits for bytes: first into `direct` (the buffer must be empty then), what is left over into the buffer. Returns how many `direct`
// got.
Task<Result<std::size_t>> FrameStream::receive(std::span<std::byte> direct) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    if ((inside_frame_ || end_ > 0) && !frame_watchdog_.running()) {  // frames that come whole at once cost no timer
        frame_watchdog_.start(limits_.frame_timeout, [self = shared_from_this()] { self->expire_frame(); });
    }

    const std::array<asio::mutable_buffer, 2> targets{asio::buffer(direct.data(), direct.size()),
                                                      asio::buffer(buffer_) + end_};
    error_code error = asio::error::operation_aborted;
    std::size_t count = 0;
    if (!closed_) count = co_await socket_.async_read_some(targets, asio::redirect_error(use_task, error));
    if (frame_timed_out_) {
        co_return Error{Errc::deadline_exceeded,
                        "a frame was not whole after " + std::to_string(limits_.frame_timeout.count()) + " ms"};
    }
    if (error) {
        const char* where = inside_frame_ || end_ > 0 ? "connection lost inside a frame: " : "connection lost: ";
        co_return Error{Errc::unavailable, where + error.message()};
    }
    const std::size_t into_direct = std::min(count, direct.size());
    end_ += count - into_direct;
    co_return into_direct;
}

void FrameStream::expire_frame() {
    frame_timed_out_ = true;
    error_code ignored;
    socket_.cancel(ignored);
}

// ---- writing

void FrameStream::send(FrameHeader header, std::string message, Payload payload) {
    if (enqueue(header, std::move(message), std::move(payload)) && !waiting_until_writable_) flush();
}

void FrameStream::send_soon(FrameHeader header, std::string message, Payload payload) {
    if (!enqueue(header, std::move(message), std::move(payload)) || std::exchange(flushes_soon_, true)) return;
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
        self->flushes_soon_ = false;
        if (!self->closed_ && !self->write_failed_ && !self->waiting_until_writable_) self->flush();
    });
}

// False: nothing is sent any more.
bool FrameStream::enqueue(FrameHeader header, std::string message, Payload payload) {
    if (closed_ || write_failed_ || shut_down_when_sent_) return false;
    header.message_bytes = static_cast<std::uint32_t>(message.size());
    header.payload_bytes = payload.size();
    Outgoing frame{encode(header), std::move(message), std::move(payload)};
    if (unsent_bytes_ > 0 && unsent_bytes_ + frame.size() > limits_.unsent_bytes_max) {
        log_warn("disconnecting a peer that reads too slowly: " + std::to_string(unsent_bytes_) +
                 " bytes wait for it, at most " + std::to_string(limits_.unsent_bytes_max) + " may");
        close();
        return false;
    }
    unsent_bytes_ += frame.size();
    *shared_unsent_bytes_ += frame.size();
    queue_.push_back(std::move(frame));
    return true;
}

void FrameStream::flush() {
    for (int round = 0; round < kFlushRounds && !queue_.empty(); ++round) {
        gather();
        error_code error;
        const std::size_t written = socket_.write_some(gathered_, error);
        if (error == asio::error::would_block || error == asio::error::try_again) break;
        if (error) return fail_writing();
        drop_written(written);
    }
    if (!queue_.empty()) return wait_until_writable();
    error_code ignored;
    writable_.close(ignored);
    if (shut_down_when_sent_) socket_.shutdown(Socket::shutdown_send, ignored);
}

void FrameStream::gather() {
    gathered_.clear();
    std::size_t skipped = front_written_;
    const auto add = [&](const void* data, std::size_t count) {
        const std::size_t skip = std::min(skipped, count);
        skipped -= skip;
        if (count > skip) gathered_.push_back(asio::buffer(data, count) + skip);
    };
    for (std::size_t i = 0; i < std::min(queue_.size(), kGatheredFrames); ++i) {
        const Outgoing& frame = queue_[i];
        add(frame.header.data(), frame.header.size());
        add(frame.message.data(), frame.message.size());
        add(frame.payload.bytes().data(), frame.payload.size());
    }
}

void FrameStream::drop_written(std::size_t count) {
    unsent_bytes_ -= count;
    *shared_unsent_bytes_ -= count;
    front_written_ += count;
    while (!queue_.empty() && front_written_ >= queue_.front().size()) {
        front_written_ -= queue_.front().size();
        queue_.pop_front();
    }
    if (on_fewer_unsent_) on_fewer_unsent_();
}

// On a descriptor of its own, since Asio never ceases to watch what it has once waited for: the peer's reading would wake this process
// after every later frame.
void FrameStream::wait_until_writable() {
    error_code error;
    if (!writable_.is_open()) {
        const int copy = ::fcntl(socket_.native_handle(), F_DUPFD_CLOEXEC, 0);
        if (copy < 0) return fail_writing();
        writable_.assign(socket_.local_endpoint(error).protocol(), copy, error);
        if (error) {
            ::close(copy);
            return fail_writing();
        }
    }
    waiting_until_writable_ = true;
    close_after(write_watchdog_, limits_.frame_timeout);
    writable_.async_wait(Socket::wait_write, [self = shared_from_this()](error_code failed) {
        self->waiting_until_writable_ = false;
        if (self->closed_) return;
        self->write_watchdog_.stop();
        if (failed) return self->fail_writing();
        self->flush();
    });
}

// What the peer sent before it went can still be read, and says why it went: the reader ends the connection, soon.
void FrameStream::fail_writing() {
    write_failed_ = true;
    forget_unsent();
    close_after(write_watchdog_, kLingerTime);
}

void FrameStream::close_after(Watchdog& watchdog, std::chrono::milliseconds wait) {
    watchdog.start(wait, [self = shared_from_this()] { self->close(); });
}

Task<> FrameStream::linger() {
    if (closed_) co_return;
    frame_watchdog_.stop();
    close_after(frame_watchdog_, kLingerTime);
    shut_down_when_sent_ = true;
    if (!waiting_until_writable_) flush();
    error_code error;
    while (!closed_ && !error) {
        co_await socket_.async_read_some(asio::buffer(buffer_), asio::redirect_error(use_task, error));
    }
    close();
}

}  // namespace kvgrid::comm
