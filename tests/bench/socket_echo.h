#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <vector>

namespace kvgrid::bench {

// The floor of a call between two processes of one host: blocking send and receive over a pair of Unix sockets, one process at each
// end, nothing else. Broken system calls throw.
class SocketEcho {
  public:
    SocketEcho(std::size_t request_bytes, std::size_t reply_bytes);  // starts the other process
    ~SocketEcho();
    SocketEcho(const SocketEcho&) = delete;
    SocketEcho& operator=(const SocketEcho&) = delete;

    std::chrono::nanoseconds round_trip();

  private:
    int socket_ = -1;
    pid_t answerer_ = -1;
    std::vector<std::byte> request_;
    std::vector<std::byte> reply_;
};

}  // namespace kvgrid::bench
