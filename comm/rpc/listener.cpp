#include "comm/rpc/listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

namespace kvgrid::comm {
namespace {

Error failed(const Endpoint& endpoint, const std::string& what, int error) {
    const Errc code = error == EADDRINUSE ? Errc::already_exists : Errc::unavailable;
    return {code, "cannot listen on " + endpoint.to_string() + ": " + what + ": " + std::strerror(error)};
}

OwnedFd open_socket(int family) {
    return OwnedFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

sockaddr_un unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
}

// Removes what a dead process left at the path.
Status clear_stale_socket(const Endpoint& endpoint) {
    struct stat found;
    if (::lstat(endpoint.path.c_str(), &found) != 0) {
        if (errno == ENOENT) return {};
        return failed(endpoint, "lstat", errno);
    }
    if (!S_ISSOCK(found.st_mode)) {
        return {Errc::invalid_argument, "cannot listen on " + endpoint.to_string() +
                                            ": a file that is no socket is there; remove it or choose another path"};
    }
    const OwnedFd probe = open_socket(AF_UNIX);
    const sockaddr_un address = unix_address(endpoint.path);
    if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
        errno == ECONNREFUSED) {
        if (::unlink(endpoint.path.c_str()) != 0 && errno != ENOENT)
            return failed(endpoint, "unlink the stale socket", errno);
        return {};
    }
    return {Errc::already_exists, "cannot listen on " + endpoint.to_string() +
                                      ": another process listens there; stop it or choose another path"};
}

Result<Listener> open_unix(const Endpoint& endpoint) {
    if (endpoint.path.size() >= sizeof(sockaddr_un::sun_path)) {
        return {Errc::invalid_argument,
                "cannot listen on " + endpoint.to_string() + ": the path is too long for a socket"};
    }
    if (auto clear = clear_stale_socket(endpoint); !clear.ok()) return clear.error();
    OwnedFd fd = open_socket(AF_UNIX);
    const sockaddr_un address = unix_address(endpoint.path);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return failed(endpoint, "bind", errno);
    }
    SocketFile file(endpoint.path);
    // Nobody can connect between bind and listen, so the mode is in force before the first connection.
    if (::chmod(endpoint.path.c_str(), S_IRUSR | S_IWUSR) != 0) return failed(endpoint, "chmod", errno);
    if (::listen(fd.get(), SOMAXCONN) != 0) return failed(endpoint, "listen", errno);
    return Listener{std::move(fd), std::move(file), endpoint};
}

bool is_loopback(const sockaddr& address) {
    if (address.sa_family == AF_INET) {
        const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
        return ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    return address.sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<AddressList> resolve(const Endpoint& endpoint) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int error = ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
    if (error != 0) {
        return {Errc::invalid_argument, "cannot listen on " + endpoint.to_string() + ": " + ::gai_strerror(error)};
    }
    return AddressList(found, &::freeaddrinfo);
}

std::uint16_t bound_port(const OwnedFd& fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                               : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

Result<Listener> open_tcp(const Endpoint& endpoint, bool allow_remote) {
    auto addresses = resolve(endpoint);
    if (!addresses.ok()) return addresses.error();
    const addrinfo& address = **addresses;
    if (!allow_remote && !is_loopback(*address.ai_addr)) {
        return {Errc::invalid_argument, "will not listen on " + endpoint.to_string() +
                                            ": it can be reached from other hosts, and that was not allowed; "
                                            "use 127.0.0.1, [::1] or a Unix socket"};
    }
    OwnedFd fd = open_socket(address.ai_family);
    if (fd.get() < 0) return failed(endpoint, "socket", errno);
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0) return failed(endpoint, "bind", errno);
    if (::listen(fd.get(), SOMAXCONN) != 0) return failed(endpoint, "listen", errno);
    const std::uint16_t port = bound_port(fd);
    return Listener{std::move(fd), SocketFile{}, Endpoint{.host = endpoint.host, .port = port}};
}

std::optional<ino_t> inode_of(const std::string& path) {
    struct stat found;
    if (::lstat(path.c_str(), &found) != 0) return std::nullopt;
    return found.st_ino;
}

}  // namespace

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
    if (this == &other) return *this;
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.release();
    return *this;
}

OwnedFd::~OwnedFd() {
    if (fd_ >= 0) ::close(fd_);
}

SocketFile::SocketFile(std::string path) : path_(std::move(path)), inode_(inode_of(path_).value_or(0)) {}

SocketFile::~SocketFile() {
    if (!path_.empty() && inode_of(path_) == inode_) ::unlink(path_.c_str());
}

Result<Listener> open_listener(const Endpoint& endpoint, bool allow_remote) {
    return endpoint.is_unix() ? open_unix(endpoint) : open_tcp(endpoint, allow_remote);
}

}  // namespace kvgrid::comm
