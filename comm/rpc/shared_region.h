#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>

#include "core/result.h"

namespace kvgrid::comm {

// Memory that two processes of one host and user share, so that tensors between them need not pass through a socket: made by a client
// (memfd), and opened by the lead through /proc/PID/fd/FILE, whose PID the kernel names (SO_PEERCRED). It has no name, and is gone when both
// have let it go.
//
//   Trust  its maker may write to it at any time, and so change what its own calls see; it is sealed against shrinking, so that nobody who
//          reads it can fault.
class SharedRegion {
  public:
    static constexpr std::size_t kBytesMax = std::size_t{4} << 30;

    // What a call brings and what it takes stand behind one another, each at such a multiple.
    static constexpr std::size_t kAlignment = 256;
    static constexpr std::size_t aligned(std::size_t bytes) {
        return (bytes + kAlignment - 1) / kAlignment * kAlignment;
    }

    // Memory is committed as it is touched. `unsupported` where the system has no memfd.
    static Result<std::shared_ptr<SharedRegion>> make(std::size_t bytes);
    // invalid_argument: it is none of `make`'s, or smaller than `bytes`. unsupported: it cannot be opened (another user, another container).
    static Result<std::shared_ptr<SharedRegion>> open(pid_t process, int file, std::size_t bytes);

    ~SharedRegion();
    SharedRegion(const SharedRegion&) = delete;
    SharedRegion& operator=(const SharedRegion&) = delete;

    std::span<std::byte> bytes() const { return bytes_; }
    int file() const { return file_; }  // its maker's; -1 where it was opened

    // Nobody is told of what is written here any more: its other side has gone.
    void close() { open_ = false; }
    bool is_open() const { return open_; }

  private:
    SharedRegion(int file, std::span<std::byte> bytes) : file_(file), bytes_(bytes) {}
    static Result<std::shared_ptr<SharedRegion>> map(int file, std::size_t bytes);

    int file_;
    const std::span<std::byte> bytes_;
    std::atomic<bool> open_ = true;
};

}  // namespace kvgrid::comm
