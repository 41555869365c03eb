// The listener answers what it should and outlives clients that are slow, too long, too many, or no HTTP at all: each of them gets a
// clear answer or its connection closed, and others are served meanwhile.
#include "comm/http/http_server.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/clock.h"
#include "tests/monitor/http_socket.h"

namespace kvgrid::comm {
namespace {

using namespace std::chrono_literals;
using tests::HttpAnswer;
using tests::HttpSocket;

constexpr const char* kGet = "GET /there HTTP/1.1\r\nHost: x\r\n\r\n";

class HttpServerTest : public testing::Test {
  protected:
    void listen(HttpLimits limits = {}) {
        server_ = std::make_unique<HttpServer>(
            io_,
            HttpRoutes{{"/there", [] { return HttpReply{.body = "hello\n"}; }},
                       {"/sick", [] { return HttpReply{.status = 503, .body = "no\n"}; }},
                       {"/large", [] { return HttpReply{.body = std::string(16 << 20, 'x')}; }}},
            limits);
        endpoint_ = server_->listen(parse_endpoint("127.0.0.1:0").value()).value();
    }
    HttpSocket connect() { return HttpSocket(endpoint_); }
    HttpAnswer ask(const std::string& request, bool has_body = true) {
        HttpSocket socket = connect();
        socket.send(request);
        return socket.read_answer(has_body);
    }
    void expect_still_serving() { EXPECT_EQ(ask(kGet).body, "hello\n"); }

    IoThread io_;
    std::unique_ptr<HttpServer> server_;
    Endpoint endpoint_;
};

TEST_F(HttpServerTest, ServesItsPathsWithTheirStatus) {
    listen();
    const HttpAnswer there = ask(kGet);
    EXPECT_EQ(there.status, 200);
    EXPECT_EQ(there.body, "hello\n");
    EXPECT_EQ(there.headers.at("content-type"), "text/plain; charset=utf-8");
    EXPECT_EQ(ask("GET /there?x=1 HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    EXPECT_EQ(ask("GET /sick HTTP/1.1\r\nHost: x\r\n\r\n").status, 503);
    const HttpAnswer missing = ask("GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(missing.status, 404);
    EXPECT_EQ(missing.body, "not here; there are /large, /sick, /there\n");
}

TEST_F(HttpServerTest, HeadHasTheHeadersOfGetAndNoBody) {
    listen();
    HttpSocket socket = connect();
    socket.send("HEAD /there HTTP/1.1\r\nHost: x\r\n\r\n");
    const HttpAnswer head = socket.read_answer(/*has_body=*/false);
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.headers.at("content-length"), "6");
    socket.send(kGet);  // would read a body of the answer before as its own beginning
    EXPECT_EQ(socket.read_answer().body, "hello\n");
}

TEST_F(HttpServerTest, AConnectionServesManyRequestsAndPipelinedOnes) {
    listen();
    HttpSocket socket = connect();
    for (int i = 0; i < 3; ++i) {
        socket.send(kGet);
        EXPECT_EQ(socket.read_answer().status, 200);
    }
    socket.send(std::string(kGet) + kGet);
    EXPECT_EQ(socket.read_answer().status, 200);
    EXPECT_EQ(socket.read_answer().status, 200);
    socket.send("GET /there HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(socket.read_answer().status, 200);
    EXPECT_TRUE(socket.is_closed());
}

TEST_F(HttpServerTest, OtherMethodsAreRefused) {
    listen();
    for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE"}) {
        const HttpAnswer answer = ask(std::string(method) + " /there HTTP/1.1\r\nHost: x\r\n\r\n");
        EXPECT_EQ(answer.status, 405) << method;
        EXPECT_EQ(answer.headers.at("allow"), "GET, HEAD");
    }
}

TEST_F(HttpServerTest, WhatIsNoHttpOrTooLongIsRefusedAndDisconnected) {
    listen();
    HttpSocket garbage = connect();
    garbage.send("\x16\x03\x01 hello, this is no HTTP\r\n\r\n");
    EXPECT_EQ(garbage.read_answer().status, 400);
    EXPECT_TRUE(garbage.is_closed());

    HttpSocket wide = connect();
    wide.send("GET /there HTTP/1.1\r\nHost: x\r\nLong: " + std::string(100'000, 'a') + "\r\n\r\n");
    EXPECT_EQ(wide.read_answer().status, 431);
    EXPECT_TRUE(wide.is_closed());

    HttpSocket body = connect();
    body.send("GET /there HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    EXPECT_EQ(body.read_answer().status, 413);
    EXPECT_TRUE(body.is_closed());
    expect_still_serving();
}

TEST_F(HttpServerTest, ASlowRequestIsCutOffByItsDeadline) {
    listen({.request_timeout = 100ms});
    HttpSocket slow = connect();
    slow.send("GET /there HTTP/1.1\r\nHo");  // and never the rest
    expect_still_serving();
    EXPECT_TRUE(slow.is_closed());
}

TEST_F(HttpServerTest, ASilentConnectionIsClosed) {
    listen({.idle_timeout = 100ms});
    HttpSocket silent = connect();
    EXPECT_TRUE(silent.is_closed());
}

TEST_F(HttpServerTest, AReaderThatDoesNotReadIsDisconnected) {
    listen({.reply_timeout = 100ms});
    HttpSocket deaf = connect();
    deaf.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_still_serving();
    // Its socket's buffers hold a part of the answer. Read only after the server has let go: the end is missing then.
    const Deadline deadline = deadline_in(60s);
    while (deaf.send(" ") && std::chrono::steady_clock::now() < deadline) {
    }
    EXPECT_LT(std::chrono::steady_clock::now(), deadline);
}

TEST_F(HttpServerTest, BeyondTheLimitAConnectionIsTurnedAway) {
    listen({.connections_max = 3});
    std::vector<HttpSocket> held;
    for (int i = 0; i < 3; ++i) {
        held.push_back(connect());
        held.back().send(kGet);
        EXPECT_EQ(held.back().read_answer().status, 200);
    }
    HttpSocket one_more = connect();
    EXPECT_EQ(one_more.read_answer().status, 503);
    EXPECT_TRUE(one_more.is_closed());
    held.clear();
    const Deadline deadline = deadline_in(60s);  // the server sees the end of the others in its own time
    int status = 0;
    while (status != 200 && std::chrono::steady_clock::now() < deadline) status = ask(kGet).status;
    EXPECT_EQ(status, 200);
}

TEST_F(HttpServerTest, ListensOnLoopbackOnlyUnlessAllowed) {
    HttpServer server(io_, {});
    EXPECT_EQ(server.listen(parse_endpoint("0.0.0.0:0").value()).error(), Errc::invalid_argument);
    EXPECT_TRUE(server.listen(parse_endpoint("0.0.0.0:0").value(), /*allow_remote=*/true));
}

TEST_F(HttpServerTest, ItsEndClosesConnections) {
    listen();
    HttpSocket idle = connect();
    idle.send(kGet);
    EXPECT_EQ(idle.read_answer().status, 200);
    HttpSocket half = connect();
    half.send("GET /th");
    server_.reset();
    EXPECT_TRUE(idle.is_closed());
    EXPECT_TRUE(half.is_closed());
}

}  // namespace
}  // namespace kvgrid::comm
