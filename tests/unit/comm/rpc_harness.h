#pragma once

// What the tests of comm/rpc share: a folder for sockets, a server with its own I/O thread, and a peer that writes what it likes.

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "comm/rpc/channel.h"
#include "comm/rpc/server.h"

namespace kvgrid::comm {

// Longer than any test that works takes.
inline Deadline far() {
    return deadline_in(std::chrono::seconds(60));
}

class TemporaryFolder {
  public:
    TemporaryFolder();
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

void leave_stale_socket(const std::string& path);  // as a killed process does

Payload payload_of(std::size_t size, unsigned seed);
bool same_bytes(const Payload& a, const Payload& b);

// Answers a `layer` request with its own bytes.
void echo(Request request, Responder responder);

// Speaks to a server, or as one, without the code under test.
class RawPeer {
  public:
    explicit RawPeer(const Endpoint& server);
    explicit RawPeer(int fd);  // an accepted connection
    RawPeer(RawPeer&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    RawPeer& operator=(RawPeer&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~RawPeer();

    void send(std::span<const std::byte> bytes);
    void send(std::string_view text) { send(std::as_bytes(std::span(text))); }
    void send(const FrameHeader& header, std::string_view body = {});
    std::optional<Frame> read_frame();  // nothing: the other side has closed
    bool is_closed();                   // waits for it; false if more bytes came
    bool is_cut_off() const;            // whether the other side has closed by now, whatever is still to be read

  private:
    int fd_;
};

// Listens without serving.
class RawListener {
  public:
    RawListener();  // of TCP
    explicit RawListener(const std::string& unix_path);
    ~RawListener();
    RawPeer accept();
    const Endpoint& endpoint() const { return endpoint_; }

  private:
    int fd_;
    Endpoint endpoint_;
};

// The Error in an `error` frame; internal if there is none.
Error error_in(const std::optional<Frame>& frame);

}  // namespace kvgrid::comm
