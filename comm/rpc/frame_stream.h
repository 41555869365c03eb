#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "comm/rpc/asio_impl.h"
#include "comm/wire/frame.h"
#include "core/clock.h"
#include "core/result.h"

namespace kvgrid::comm {

// A timer for a wait that usually ends before its time. I/O thread only.
class Watchdog {
  public:
    explicit Watchdog(Executor executor) : timer_(executor) {}

    bool running() const { return deadline_.has_value(); }
    void start(std::chrono::milliseconds wait,
               std::function<void()> expire);  // `expire` owns the watchdog's owner; a start replaces the one before
    void stop();

  private:
    SteadyTimer timer_;
    std::optional<Deadline> deadline_;
};

// One connected socket that carries frames, for both a Server's connections and a Channel. I/O thread only.
//
//   read    socket -> buffer_ (small frames, several per system call)
//                  -> straight into the message and the payload, where these are longer than what is buffered
//   send    tried at once on the calling handler's stack; what the socket does not take waits in queue_ until it is writable
//
// Every wait inside a frame has a deadline: a frame that has begun must be whole after frame_timeout, and a peer must take some of the
// bytes that wait for it within frame_timeout. Waiting for a frame to begin has none.
class FrameStream : public std::enable_shared_from_this<FrameStream> {
  public:
    struct Limits {
        std::size_t unsent_bytes_max;
        std::chrono::milliseconds frame_timeout;
    };
    // Counts bytes that were given to send() and are not written; may be watched from any thread.
    using UnsentBytes = std::shared_ptr<std::atomic<std::size_t>>;

    FrameStream(Socket socket, Limits limits, UnsentBytes unsent_bytes);
    ~FrameStream();

    // The next frame, whole and checked against its limits before memory is allocated for it; one read at a time. After an error
    // nothing more can be read. `unavailable`: the connection is gone or closed; any other: the peer broke the protocol.
    Task<Result<Frame>> read();
    std::uint64_t rejected_request() const {
        return rejected_request_;
    }  // of the frame that read() refused, 0 if not known

    std::size_t unsent_bytes() const { return unsent_bytes_; }
    void on_fewer_unsent(std::function<void()> callback) { on_fewer_unsent_ = std::move(callback); }

    // Lengths must be within the type's limits. A peer that leaves more than unsent_bytes_max unread is disconnected; the bound does
    // not hold for a single frame.
    void send(FrameHeader header, std::string message, Payload payload);
    // The same, written when the caller has returned: what it does before it needs the socket comes first, and several go at once.
    void send_soon(FrameHeader header, std::string message, Payload payload);

    // Ends the connection so that the peer can still read what was sent: a close with unread input would discard it.
    Task<> linger();
    void close();

  private:
    struct Outgoing {
        std::array<std::byte, kFrameHeaderBytes> header;
        std::string message;
        Payload payload;
        std::size_t size() const { return header.size() + message.size() + payload.size(); }
    };

    Task<Status> read_message(std::string& message, std::size_t count);
    Task<Result<Payload>> read_payload(std::size_t count);
    Task<Status> receive_all(std::span<std::byte> target);
    Task<Result<std::size_t>> receive(std::span<std::byte> direct);
    std::span<const std::byte> buffered() const { return std::span(buffer_).subspan(begin_, end_ - begin_); }
    std::size_t take_buffered(std::span<std::byte> target);
    void expire_frame();

    bool enqueue(FrameHeader header, std::string message, Payload payload);
    void flush();
    void gather();
    void drop_written(std::size_t count);
    void forget_unsent();
    void wait_until_writable();
    void fail_writing();
    void close_after(Watchdog& watchdog, std::chrono::milliseconds wait);

    Socket socket_;
    Socket writable_;  // the same, while the queue waits for its peer
    const Limits limits_;
    UnsentBytes shared_unsent_bytes_;
    bool closed_ = false;

    std::array<std::byte, 16 << 10> buffer_;
    std::size_t begin_ = 0, end_ = 0;
    bool inside_frame_ = false;  // its header is read, the rest is not
    std::uint64_t rejected_request_ = 0;
    Watchdog frame_watchdog_;
    bool frame_timed_out_ = false;

    std::deque<Outgoing> queue_;
    std::size_t front_written_ = 0;  // bytes of queue_.front() that are written
    std::size_t unsent_bytes_ = 0;
    std::function<void()> on_fewer_unsent_;
    std::vector<asio::const_buffer> gathered_;
    bool waiting_until_writable_ = false;
    bool flushes_soon_ = false;
    bool write_failed_ = false;
    bool shut_down_when_sent_ = false;
    Watchdog write_watchdog_;
};

}  // namespace kvgrid::comm
