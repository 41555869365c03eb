#include "comm/http/http_server.h"

#include <array>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <future>
#include <optional>
#include <set>

#include "comm/rpc/acceptors.h"
#include "core/log.h"

namespace kvgrid::comm {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;

using Stream = beast::basic_stream<asio::generic::stream_protocol, Executor>;
using Answer = http::response<http::string_body>;

constexpr std::chrono::milliseconds kLingerTimeout{1'000};
constexpr std::size_t kLingerBytesMax = 256 << 10;
constexpr std::string_view kBusy =
    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 31\r\n\r\n"
    "all connections are taken here\n";

HttpReply refusal(http::status status, std::string why) {
    return {.status = static_cast<int>(status), .body = std::move(why) + "\n"};
}

std::string paths_of(const HttpRoutes& routes) {
    std::string paths;
    for (const auto& [path, route] : routes) paths += (paths.empty() ? "" : ", ") + path;
    return paths;
}

HttpReply reply_to(const HttpRoutes& routes, http::verb method, std::string_view target) {
    if (method != http::verb::get && method != http::verb::head)
        return refusal(http::status::method_not_allowed, "only GET and HEAD are served here");
    const auto route = routes.find(std::string(target.substr(0, target.find('?'))));
    if (route == routes.end()) return refusal(http::status::not_found, "not here; there are " + paths_of(routes));
    return route->second();
}

Answer answer_with(HttpReply reply, unsigned version, bool keep_alive, bool head) {
    Answer answer(static_cast<http::status>(reply.status), version);
    answer.set(http::field::server, "kvgrid");
    answer.set(http::field::content_type, reply.content_type);
    answer.set(http::field::cache_control, "no-store");
    if (reply.status == static_cast<int>(http::status::method_not_allowed)) answer.set(http::field::allow, "GET, HEAD");
    answer.keep_alive(keep_alive);
    answer.content_length(reply.body.size());  // of what a GET would get
    if (!head) answer.body() = std::move(reply.body);
    return answer;
}

// What to tell a client whose request could not be read; nothing where it left or was too slow.
std::optional<HttpReply> complaint(const error_code& error) {
    if (error == http::error::header_limit || error == http::error::buffer_overflow)
        return refusal(http::status::request_header_fields_too_large, "the request's header is too long");
    if (error == http::error::body_limit || error == http::error::unexpected_body)
        return refusal(http::status::payload_too_large, "a request has no body here");
    const bool of_http = error.category() == http::make_error_code(http::error::bad_method).category();
    if (of_http && error != http::error::end_of_stream && error != http::error::partial_message)
        return refusal(http::status::bad_request, "not HTTP: " + error.message());
    return std::nullopt;
}

}  // namespace

// Lives on the I/O thread, and until the last coroutine that serves one of its connections has ended.
struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
    Impl(IoThread& io_thread, HttpRoutes given, HttpLimits given_limits)
        : io(io_thread), routes(std::move(given)), limits(given_limits) {}

    Executor executor() const { return io.impl().context.get_executor(); }

    void add(Socket socket);
    void close_all();
    static Task<> serve(std::shared_ptr<Impl> server, std::shared_ptr<Stream> stream);
    Task<bool> serve_one(Stream& stream, beast::flat_buffer& buffer);
    Task<bool> write(Stream& stream, Answer answer);
    static Task<> linger(Stream& stream);

    IoThread& io;
    HttpRoutes routes;
    const HttpLimits limits;
    bool closed = false;
    const std::shared_ptr<Acceptors> acceptors =
        std::make_shared<Acceptors>(io, "an HTTP connection", [this](Socket socket) { add(std::move(socket)); });
    std::set<std::shared_ptr<Stream>> connections;
};

HttpServer::HttpServer(IoThread& io, HttpRoutes routes, HttpLimits limits)
    : impl_(std::make_shared<Impl>(io, std::move(routes), limits)) {}

HttpServer::~HttpServer() {
    if (impl_->io.on_this_thread()) fatal("an HttpServer was destroyed on its I/O thread");
    std::promise<void> closed;
    impl_->io.post([impl = impl_, &closed] {
        impl->close_all();
        closed.set_value();
    });
    closed.get_future().wait();
}

Result<Endpoint> HttpServer::listen(const Endpoint& endpoint, bool allow_remote) {
    return impl_->acceptors->listen(endpoint, allow_remote);
}

void HttpServer::Impl::close_all() {
    closed = true;
    routes = {};
    acceptors->close();
    for (const auto& connection : connections) connection->close();
}

void HttpServer::Impl::add(Socket socket) {
    if (static_cast<int>(connections.size()) >= limits.connections_max) {
        error_code ignored;
        socket.non_blocking(true, ignored);
        socket.write_some(asio::buffer(kBusy), ignored);
        return;
    }
    auto stream = std::make_shared<Stream>(std::move(socket));
    connections.insert(stream);
    start(executor(), serve(shared_from_this(), stream));
}

Task<> HttpServer::Impl::serve(std::shared_ptr<Impl> server, std::shared_ptr<Stream> stream) {
    // The buffer's bound holds the parser's too: it never keeps more than it reads at a time.
    beast::flat_buffer buffer(server->limits.header_bytes_max);
    while (!server->closed && co_await server->serve_one(*stream, buffer)) {
    }
    stream->close();
    server->connections.erase(stream);
}

// Whether the connection stays open for another request.
Task<bool> HttpServer::Impl::serve_one(Stream& stream, beast::flat_buffer& buffer) {
    error_code error;
    if (buffer.size() == 0) {
        stream.expires_after(limits.idle_timeout);
        const std::size_t some =
            co_await stream.async_read_some(buffer.prepare(1), asio::redirect_error(use_task, error));
        if (error || closed) co_return false;
        buffer.commit(some);
    }
    http::request_parser<http::empty_body> parser;
    parser.header_limit(static_cast<std::uint32_t>(limits.header_bytes_max));
    stream.expires_after(limits.request_timeout);
    co_await http::async_read(stream, buffer, parser, asio::redirect_error(use_task, error));
    if (closed) co_return false;
    if (error) {
        if (auto reply = complaint(error)) {
            co_await write(stream, answer_with(*std::move(reply), 11, false, false));
            co_await linger(stream);
        }
        co_return false;
    }
    const auto& request = parser.get();
    co_return co_await write(stream,
                             answer_with(reply_to(routes, request.method(), request.target()), request.version(),
                                         request.keep_alive(), request.method() == http::verb::head));
}

Task<bool> HttpServer::Impl::write(Stream& stream, Answer answer) {
    error_code error;
    stream.expires_after(limits.reply_timeout);
    const bool keep_alive = answer.keep_alive();
    co_await http::async_write(stream, answer, asio::redirect_error(use_task, error));
    co_return !error && keep_alive && !closed;
}

// Reads what the client is still sending, within bounds: closed earlier, the kernel would take the reply back.
Task<> HttpServer::Impl::linger(Stream& stream) {
    error_code error;
    stream.socket().shutdown(asio::socket_base::shutdown_send, error);
    stream.expires_after(kLingerTimeout);
    std::array<char, 4096> unread;
    for (std::size_t total = 0; !error && total < kLingerBytesMax;)
        total += co_await stream.async_read_some(asio::buffer(unread), asio::redirect_error(use_task, error));
}

}  // namespace kvgrid::comm
