#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.h"

namespace kvgrid::comm {

// Where a process listens: "unix:/path/to.sock" or "host:port" (TCP; "[::1]:port" for IPv6).
struct Endpoint {
    std::string path;  // Unix-domain socket; empty for TCP
    std::string host;
    std::uint16_t port = 0;  // 0 when listening: any free one

    bool is_unix() const { return !path.empty(); }
    std::string to_string() const;
};

Result<Endpoint> parse_endpoint(std::string_view text);

}  // namespace kvgrid::comm
