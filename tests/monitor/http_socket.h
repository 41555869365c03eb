#pragma once

#include <map>
#include <string>
#include <string_view>

#include "comm/rpc/endpoint.h"

namespace kvgrid::tests {

struct HttpAnswer {
    int status = 0;                              // 0: the other side closed without a whole answer
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
};

// Speaks HTTP to a server without the code under test, and as badly as a test likes.
class HttpSocket {
  public:
    explicit HttpSocket(const comm::Endpoint& server);
    HttpSocket(HttpSocket&& other) noexcept : fd_(other.fd_), unread_(std::move(other.unread_)) { other.fd_ = -1; }
    ~HttpSocket();

    bool send(std::string_view bytes);  // false: the other side has closed
    HttpAnswer read_answer(bool has_body = true);
    bool is_closed();  // waits for it; false if bytes came, or nothing for a minute

  private:
    bool read_more();

    int fd_;
    std::string unread_;
};

// One GET over a connection of its own.
HttpAnswer http_get(const std::string& endpoint, const std::string& path);

}  // namespace kvgrid::tests
