#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "comm/rpc/asio_impl.h"
#include "comm/rpc/backoff.h"
#include "comm/rpc/channel.h"
#include "comm/rpc/frame_stream.h"
#include "comm/rpc/pending_calls.h"
#include "comm/rpc/ring_line.h"

namespace kvgrid::comm {

// What a Channel keeps, for channel.cpp (the calls) and channel_connection.cpp (the connection).
//
//   idle --a call or post--> connecting --> connected --lost--> connecting if calls wait, else idle
//                               ^   | failed
//                               +-- back-off, while calls wait
//
// A call is `waiting` (no connection yet: its frame is kept) or `sent`; both kinds are in `pending` until they end.
struct Channel::Impl : std::enable_shared_from_this<Channel::Impl> {
    struct Waiting {
        FrameHeader header;
        std::string message;
        Payload payload;
        Deadline deadline;
        std::size_t size() const { return kFrameHeaderBytes + message.size() + payload.size(); }
    };

    Impl(IoThread& io_thread, Endpoint target, Options given);

    // Any thread.
    Status admit_bytes(std::size_t size);  // counts them as unsent, or refuses
    bool admit_call();
    template <class Work>
    void in_order(Work work);

    // I/O thread.
    void begin_call(Waiting call, Callback done);
    void begin_post(Waiting frame, std::uint64_t connection);
    void send_waiting();
    void send(Waiting frame);
    void end(PendingCalls::Call call, Result<Frame> result);
    void end_all(std::vector<PendingCalls::Call> calls, const Error& error);
    void expire_calls();
    void watch_deadlines();
    void close();

    void ensure_running();
    static Task<> run(std::shared_ptr<Impl> channel);
    Task<Result<Socket>> connect();
    Task<error_code> connect_to(asio::generic::stream_protocol::endpoint address, Socket& socket);
    Task<> wait_for_back_off();
    Task<Error> read_replies();
    void established(Socket socket);
    void share_ring();
    void open_ring(std::shared_ptr<SharedRegion> region);
    bool send_by_ring(const Waiting& frame);
    std::optional<Error> take_answer(Frame frame);
    Error of_server(Errc code, const std::string& what) const;
    void lost(const Error& why);

    IoThread& io;
    const Endpoint endpoint;
    const Options options;

    // Any thread.
    std::atomic<int> call_count = 0;
    std::atomic<int> posted_count = 0;          // calls and posts that wait for the I/O thread
    std::atomic<std::uint64_t> connection = 0;  // the number of the established one; 0: none
    const FrameStream::UnsentBytes unsent_bytes = std::make_shared<std::atomic<std::size_t>>(0);

    // I/O thread.
    PendingCalls pending;
    std::deque<Waiting> waiting;
    SteadyTimer deadline_timer;
    Deadline watched_deadline = Deadline::max();
    std::shared_ptr<FrameStream> stream;  // while connected
    std::shared_ptr<RingLine> ring;       // of that connection, once the server has it
    int socket_calls = 0;                 // that the server may not have read yet
    std::uint64_t last_connection = 0;
    Backoff backoff;
    TimePoint connect_not_before{};
    SteadyTimer backoff_timer;
    Socket* connecting = nullptr;  // that of the attempt under way
    Watchdog connect_watchdog;
    std::string connect_problem = "not tried yet";
    std::function<void()> on_disconnect;
    bool running = false;
    bool closed = false;
};

}  // namespace kvgrid::comm
