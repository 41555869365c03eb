#pragma once

#include <sys/types.h>

#include <utility>

#include "comm/rpc/endpoint.h"
#include "core/result.h"

namespace kvgrid::comm {

// A file descriptor that is closed with its owner.
class OwnedFd {
  public:
    OwnedFd() = default;
    explicit OwnedFd(int fd) : fd_(fd) {}
    OwnedFd(OwnedFd&& other) noexcept : fd_(other.release()) {}
    OwnedFd& operator=(OwnedFd&& other) noexcept;
    ~OwnedFd();

    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }

  private:
    int fd_ = -1;
};

// The file of a Unix socket, removed with its owner unless another socket has taken its place.
class SocketFile {
  public:
    SocketFile() = default;
    explicit SocketFile(std::string path);  // that exists
    SocketFile(SocketFile&& other) noexcept : path_(std::exchange(other.path_, {})), inode_(other.inode_) {}
    SocketFile& operator=(SocketFile&&) = delete;
    ~SocketFile();

  private:
    std::string path_;
    ino_t inode_ = 0;
};

struct Listener {
    OwnedFd fd;
    SocketFile file;    // of a Unix socket
    Endpoint endpoint;  // as bound
};

// Binds and listens. Refuses a TCP address that is not this host's loopback unless `allow_remote`. A Unix socket is for its owner only
// (mode 0600); a stale file is replaced, one that somebody listens on (already_exists) or that is no socket is left alone.
Result<Listener> open_listener(const Endpoint& endpoint, bool allow_remote);

}  // namespace kvgrid::comm
