#include "tests/monitor/http_socket.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <stdexcept>

namespace kvgrid::tests {

namespace {

constexpr timeval kPatience{60, 0};  // longer than any test that works takes

}  // namespace

HttpSocket::HttpSocket(const comm::Endpoint& server) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server.port);
    ::inet_pton(AF_INET, server.host.c_str(), &address.sin_addr);
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw std::runtime_error("cannot connect to " + server.to_string());
}

HttpSocket::~HttpSocket() {
    if (fd_ >= 0) ::close(fd_);
}

bool HttpSocket::send(std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

bool HttpSocket::read_more() {
    char buffer[65536];
    const ssize_t got = ::recv(fd_, buffer, sizeof buffer, 0);
    if (got <= 0) return false;
    unread_.append(buffer, static_cast<std::size_t>(got));
    return true;
}

HttpAnswer HttpSocket::read_answer(bool has_body) {
    std::size_t end = 0;
    while ((end = unread_.find("\r\n\r\n")) == std::string::npos) {
        if (!read_more()) return {};
    }
    HttpAnswer answer;
    std::string head = unread_.substr(0, end);
    unread_.erase(0, end + 4);
    for (std::size_t line = head.find("\r\n"); line != std::string::npos; line = head.find("\r\n", line + 2)) {
        const std::size_t colon = head.find(':', line);
        std::string name = head.substr(line + 2, colon - line - 2);
        std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
        answer.headers[name] = head.substr(colon + 2, head.find("\r\n", colon) - colon - 2);
    }
    const std::size_t length = has_body ? std::strtoul(answer.headers["content-length"].c_str(), nullptr, 10) : 0;
    while (unread_.size() < length) {
        if (!read_more()) return {};
    }
    answer.status = std::atoi(head.substr(head.find(' ') + 1, 3).c_str());
    answer.body = unread_.substr(0, length);
    unread_.erase(0, length);
    return answer;
}

bool HttpSocket::is_closed() {
    char byte = 0;
    const ssize_t got = ::recv(fd_, &byte, 1, 0);
    return got == 0 || (got < 0 && errno == ECONNRESET);
}

HttpAnswer http_get(const std::string& endpoint, const std::string& path) {
    HttpSocket socket(comm::parse_endpoint(endpoint).value());
    socket.send("GET " + path + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    return socket.read_answer();
}

}  // namespace kvgrid::tests
