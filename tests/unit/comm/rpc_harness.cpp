#include "tests/unit/comm/rpc_harness.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>

#include "comm/wire/messages.h"

namespace kvgrid::comm {
namespace {

sockaddr_un unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
}

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

template <class Address>
const sockaddr* generic(const Address& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

// Reads until `target` is full; false at the end of the stream.
bool read_all(int fd, std::span<std::byte> target) {
    while (!target.empty()) {
        const ssize_t count = ::recv(fd, target.data(), target.size(), 0);
        if (count <= 0) return false;
        target = target.subspan(static_cast<std::size_t>(count));
    }
    return true;
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
    std::string name = std::filesystem::temp_directory_path() / "kvgrid_comm_XXXXXX";
    path_ = ::mkdtemp(name.data());
}

TemporaryFolder::~TemporaryFolder() {
    std::filesystem::remove_all(path_);
}

void leave_stale_socket(const std::string& path) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    const sockaddr_un address = unix_address(path);
    EXPECT_EQ(::bind(fd, generic(address), sizeof address), 0);
    ::close(fd);
}

Payload payload_of(std::size_t size, unsigned seed) {
    std::vector<std::byte> bytes(size);
    std::minstd_rand random(seed);
    std::ranges::generate(bytes, [&] { return static_cast<std::byte>(random()); });
    return Payload::own(std::move(bytes));
}

bool same_bytes(const Payload& a, const Payload& b) {
    return std::ranges::equal(a.bytes(), b.bytes());
}

void echo(Request request, Responder responder) {
    responder.reply(MessageType::layer_reply, std::move(request.frame.message), std::move(request.frame.payload));
}

RawPeer::RawPeer(const Endpoint& server) : fd_(::socket(server.is_unix() ? AF_UNIX : AF_INET, SOCK_STREAM, 0)) {
    const sockaddr_un local = unix_address(server.path);
    const sockaddr_in tcp = loopback(server.port);
    const int result =
        server.is_unix() ? ::connect(fd_, generic(local), sizeof local) : ::connect(fd_, generic(tcp), sizeof tcp);
    EXPECT_EQ(result, 0) << std::strerror(errno);
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

RawPeer::RawPeer(int fd) : fd_(fd) {}

RawPeer::~RawPeer() {
    if (fd_ >= 0) ::close(fd_);
}

void RawPeer::send(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (count <= 0) return;  // the other side has closed, which is_closed() will tell
        bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
}

void RawPeer::send(const FrameHeader& header, std::string_view body) {
    const auto bytes = encode(header);
    send(std::span<const std::byte>(bytes));
    send(body);
}

std::optional<Frame> RawPeer::read_frame() {
    std::array<std::byte, kFrameHeaderBytes> bytes;
    if (!read_all(fd_, bytes)) return std::nullopt;
    auto header = decode(bytes);
    EXPECT_TRUE(header.ok());
    if (!header.ok()) return std::nullopt;
    Frame frame{*header, std::string(header->message_bytes, '\0'), {}};
    std::vector<std::byte> payload(header->payload_bytes);
    if (!read_all(fd_, std::as_writable_bytes(std::span(frame.message))) || !read_all(fd_, payload))
        return std::nullopt;
    frame.payload = Payload::own(std::move(payload));
    return frame;
}

bool RawPeer::is_closed() {
    std::byte byte;
    return ::recv(fd_, &byte, 1, 0) <= 0;
}

bool RawPeer::is_cut_off() const {
    pollfd state{.fd = fd_, .events = POLLRDHUP, .revents = 0};
    return ::poll(&state, 1, 0) == 1 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

RawListener::RawListener() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd_, generic(address), size), 0);
    EXPECT_EQ(::listen(fd_, 8), 0);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    endpoint_ = {.host = "127.0.0.1", .port = ntohs(address.sin_port)};
}

RawListener::RawListener(const std::string& unix_path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    const sockaddr_un address = unix_address(unix_path);
    EXPECT_EQ(::bind(fd_, generic(address), sizeof address), 0);
    EXPECT_EQ(::listen(fd_, 8), 0);
    endpoint_ = {.path = unix_path};
}

RawListener::~RawListener() {
    ::close(fd_);
}

RawPeer RawListener::accept() {
    return RawPeer(::accept(fd_, nullptr, nullptr));
}

Error error_in(const std::optional<Frame>& frame) {
    if (!frame || frame->header.type != MessageType::error) return {Errc::internal, "no error frame"};
    return from_wire(*unpack<wire::ErrorReply>(*frame));
}

}  // namespace kvgrid::comm
