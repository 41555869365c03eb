#include "tests/bench/socket_echo.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>

namespace kvgrid::bench {
namespace {

bool receive_all(int socket, std::vector<std::byte>& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t count = ::recv(socket, bytes.data() + done, bytes.size() - done, 0);
        if (count <= 0) return false;
        done += static_cast<std::size_t>(count);
    }
    return true;
}

bool send_all(int socket, const std::vector<std::byte>& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t count = ::send(socket, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
        if (count <= 0) return false;
        done += static_cast<std::size_t>(count);
    }
    return true;
}

[[noreturn]] void throw_last_error(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

SocketEcho::SocketEcho(std::size_t request_bytes, std::size_t reply_bytes)
    : request_(request_bytes), reply_(reply_bytes) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw_last_error("socketpair");
    socket_ = ends[0];
    answerer_ = ::fork();
    if (answerer_ < 0) throw_last_error("fork");
    if (answerer_ > 0) {
        ::close(ends[1]);
        return;
    }
    // The parent has threads: only system calls are safe here.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(ends[0]);
    while (receive_all(ends[1], request_) && send_all(ends[1], reply_)) {
    }
    ::_exit(0);
}

SocketEcho::~SocketEcho() {
    ::close(socket_);
    ::kill(answerer_, SIGKILL);
    ::waitpid(answerer_, nullptr, 0);
}

std::chrono::nanoseconds SocketEcho::round_trip() {
    const auto start = std::chrono::steady_clock::now();
    if (!send_all(socket_, request_) || !receive_all(socket_, reply_)) throw_last_error("the socket's other end");
    return std::chrono::steady_clock::now() - start;
}

}  // namespace kvgrid::bench
