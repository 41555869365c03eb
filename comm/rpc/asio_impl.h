#pragma once

// The only door to Asio: for the .cpp files of comm/rpc, where it is precompiled, and of comm/http. No public header includes it.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "comm/rpc/io_thread.h"
#include "comm/rpc/io_turn.h"
#include "comm/rpc/short_waits.h"

namespace kvgrid::comm {

namespace asio = boost::asio;
using boost::system::error_code;

// The io_context's own executor, not a type-erased one, and one socket type for both address families.
using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<asio::generic::stream_protocol, Executor>;
using Acceptor = asio::basic_socket_acceptor<asio::generic::stream_protocol, Executor>;
using SteadyTimer =
    asio::basic_waitable_timer<std::chrono::steady_clock, asio::wait_traits<std::chrono::steady_clock>, Executor>;

template <class T = void>
using Task = asio::awaitable<T, Executor>;
inline constexpr asio::use_awaitable_t<Executor> use_task;

class RingLine;

struct IoThread::Impl {
    asio::io_context context;
    asio::executor_work_guard<Executor> keeps_running{context.get_executor()};
    IoTurn turn;
    ShortWaits stand_ins_waits;  // of whoever stands in
    std::thread thread;

    // On the I/O thread: the rings of connections, until they die. Whoever stands in looks at them, and says so in them.
    void add(const std::shared_ptr<RingLine>& line);
    bool look();  // whether there was anything
    void begin_looking();
    void cease_looking();  // and looks a last time

    std::vector<std::weak_ptr<RingLine>> lines;
    bool looking = false;
};

// Starts a coroutine. What it throws ends the process through the I/O thread (asio::detached would swallow it).
inline void start(Executor executor, Task<> task) {
    asio::co_spawn(executor, std::move(task), [](std::exception_ptr thrown) {
        if (thrown) std::rethrow_exception(thrown);
    });
}

}  // namespace kvgrid::comm
