#include "comm/rpc/endpoint.h"

#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace kvgrid::comm {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr std::size_t kPathBytesMax = sizeof(sockaddr_un::sun_path) - 1;

Error bad(std::string_view text, const std::string& why) {
    return {Errc::invalid_argument, "endpoint \"" + std::string(text) + "\": " + why +
                                        R"(; write "unix:/path.sock", "host:port" or "[::1]:port")"};
}

bool is_host(std::string_view host, std::string_view also_allowed) {
    return !host.empty() && std::ranges::all_of(host, [&](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               also_allowed.find(c) != std::string_view::npos;
    });
}

std::optional<std::uint16_t> parse_port(std::string_view digits) {
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
    return port;
}

Result<Endpoint> parse_unix(std::string_view text) {
    const std::string_view path = text.substr(kUnixPrefix.size());
    if (path.empty()) return bad(text, "the path is missing");
    if (path.size() > kPathBytesMax) {
        return bad(text, "a socket's path has at most " + std::to_string(kPathBytesMax) + " bytes");
    }
    if (path.find('\0') != std::string_view::npos) return bad(text, "a path holds no zero byte");
    return Endpoint{.path = std::string(path)};
}

}  // namespace

std::string Endpoint::to_string() const {
    if (is_unix()) return std::string(kUnixPrefix) + path;
    const bool is_ipv6 = host.find(':') != std::string::npos;
    return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<Endpoint> parse_endpoint(std::string_view text) {
    if (text.starts_with(kUnixPrefix)) return parse_unix(text);
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return bad(text, "the port is missing");
    const auto port = parse_port(text.substr(colon + 1));
    if (!port) return bad(text, "the port is no number from 0 to 65535");

    std::string_view host = text.substr(0, colon);
    const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    if (!is_host(host, bracketed ? ":.%" : ".-_")) return bad(text, "the host is missing or no host name or address");
    return Endpoint{.host = std::string(host), .port = *port};
}

}  // namespace kvgrid::comm
