// No bytes that a peer sends, or does not send or read, harm more than its own connection: it is told why, in an error frame that names
// the request where that could be read, and disconnected. The peers here write to sockets without the code under test.

#include <atomic>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "comm/wire/messages.h"
#include "tests/unit/comm/rpc_harness.h"

namespace kvgrid::comm {
namespace {

using std::chrono::milliseconds;

struct HostilePeer : ::testing::Test {
    // Sends bytes and expects this error with this request number, and then the end.
    void expect_refusal(std::string_view bytes, Errc code, std::uint64_t request) {
        Server server(server_io, {echo, {}});
        RawPeer peer(*server.listen({.host = "127.0.0.1"}));
        peer.send(bytes);

        const auto answer = peer.read_frame();

        EXPECT_EQ(error_in(answer), code) << error_in(answer).to_string();
        EXPECT_EQ(answer ? answer->header.request : ~0ull, request);
        EXPECT_TRUE(peer.is_closed());
    }

    static std::string header_bytes(const FrameHeader& header) {
        const auto bytes = encode(header);
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }

    TemporaryFolder folder;
    IoThread server_io;
    IoThread client_io;
};

std::size_t resident_bytes() {
    std::size_t pages_total = 0, pages_resident = 0;
    std::ifstream("/proc/self/statm") >> pages_total >> pages_resident;
    return pages_resident * 4096;
}

TEST_F(HostilePeer, GarbageIsRefused) {
    expect_refusal("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n                ", Errc::corrupt, 0);
}

TEST_F(HostilePeer, AnotherVersionIsRefused) {
    std::string bytes = header_bytes({.type = MessageType::status, .request = 7});
    bytes[4] = 2;
    expect_refusal(bytes, Errc::unsupported, 7);
}

TEST_F(HostilePeer, AnUnknownTypeIsRefused) {
    expect_refusal(header_bytes({.type = MessageType{999}, .request = 7}), Errc::unsupported, 7);
}

TEST_F(HostilePeer, AnOverlongMessageOrPayloadIsRefusedByItsHeaderAlone) {
    expect_refusal(header_bytes({.type = MessageType::status, .request = 7, .message_bytes = 65'537}), Errc::corrupt,
                   7);
    expect_refusal(header_bytes({.type = MessageType::layer, .request = 7, .payload_bytes = ~0ull}), Errc::corrupt, 7);
}

TEST_F(HostilePeer, AnAnswerIsNoRequest) {
    expect_refusal(header_bytes({.type = MessageType::empty, .request = 7}), Errc::corrupt, 7);
    expect_refusal(header_bytes({.type = MessageType::error, .request = 7}), Errc::corrupt, 7);
}

TEST_F(HostilePeer, AnErrorReachesAPeerThatSentMoreThanWasRead) {
    expect_refusal(std::string(1 << 20, 'x'), Errc::corrupt, 0);
}

TEST_F(HostilePeer, MemoryThatIsAnnouncedAndNotSentIsNotCommitted) {
    std::promise<void> disconnected;
    Server server(server_io, {echo, [&](ConnectionId) { disconnected.set_value(); }});
    const std::size_t before = resident_bytes();
    {
        RawPeer peer(*server.listen({.host = "127.0.0.1"}));
        peer.send({.type = MessageType::operation, .message_bytes = 1, .payload_bytes = std::uint64_t{1} << 30}, "m");
        peer.send(std::string(100'000, 'p'));
    }
    disconnected.get_future().wait();

    EXPECT_LT(resident_bytes(), before + (std::size_t{64} << 20));
}

TEST_F(HostilePeer, AFrameThatIsNeverFinishedIsGivenUp) {
    Server server(server_io, {echo, {}}, {.frame_timeout = milliseconds(30)});
    const auto endpoint = server.listen({.host = "127.0.0.1"});
    RawPeer half_header(*endpoint), half_message(*endpoint), idle(*endpoint);
    half_header.send("KVGR");
    half_message.send({.type = MessageType::status, .request = 3, .message_bytes = 10}, "half");

    EXPECT_EQ(error_in(half_header.read_frame()), Errc::deadline_exceeded);
    EXPECT_TRUE(half_header.is_closed());
    EXPECT_EQ(error_in(half_message.read_frame()), Errc::deadline_exceeded);

    idle.send({.type = MessageType::layer, .request = 4});  // waiting for a frame to begin has no deadline
    EXPECT_EQ(idle.read_frame()->header.request, 4u);
}

TEST_F(HostilePeer, AFrameMayComeByteByByteAndManyMayComeAtOnce) {
    Server server(server_io, {echo, {}});
    RawPeer peer(*server.listen({.host = "127.0.0.1"}));
    const std::string frame =
        header_bytes({.type = MessageType::layer, .request = 5, .message_bytes = 3, .payload_bytes = 2});
    for (const char byte : frame + "abcde") peer.send(std::string_view(&byte, 1));

    auto reply = peer.read_frame();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->message, "abc");
    EXPECT_EQ(reply->payload.size(), 2u);

    std::string many;
    for (int i = 0; i < 500; ++i) many += frame + "abcde";
    auto sender = std::async(std::launch::async, [&] { peer.send(many); });
    for (int i = 0; i < 500; ++i) ASSERT_TRUE(peer.read_frame()) << i;
}

TEST_F(HostilePeer, AReaderThatDoesNotReadIsDisconnected) {
    std::promise<void> disconnected;
    Server server(
        server_io,
        {[](Request, Responder responder) { responder.reply(MessageType::layer_reply, "", payload_of(1 << 20, 1)); },
         [&](ConnectionId) { disconnected.set_value(); }},
        {.unsent_bytes_max = 4 << 20});
    RawPeer peer(*server.listen({.path = folder.path() + "/s"}));

    for (std::uint64_t i = 1; i <= 20; ++i) peer.send({.type = MessageType::layer, .request = i});

    disconnected.get_future().wait();
    EXPECT_EQ(server.connection_count(), 0);
}

TEST_F(HostilePeer, NothingMoreIsReadFromAPeerWhileItsAnswersWait) {
    constexpr std::size_t kAnswerBytes = 1 << 20;
    constexpr int kRequests = 50;
    std::atomic<int> handled = 0;
    Server server(server_io,
                  {[&](Request, Responder responder) {
                       ++handled;
                       responder.reply(MessageType::layer_reply, "", payload_of(kAnswerBytes, 1));
                   },
                   {}},
                  {.unsent_bytes_pause = kAnswerBytes});
    RawPeer peer(*server.listen({.path = folder.path() + "/s"}));
    for (std::uint64_t i = 1; i <= kRequests; ++i) peer.send({.type = MessageType::layer, .request = i});

    int most_waiting = 0;
    for (int read = 0; read < kRequests; ++read) {
        most_waiting = std::max(most_waiting, handled - read);
        ASSERT_TRUE(peer.read_frame()) << read;
    }

    EXPECT_EQ(handled, kRequests);
    EXPECT_LE(most_waiting, 4);  // one at the pause, one beyond it, and what the sockets hold: less than two
}

TEST_F(HostilePeer, WhenAllAnswersAreTooManyTheSlowestReaderGoes) {
    std::promise<ConnectionId> disconnected;
    std::promise<void> first_has_most;
    int handled = 0;
    Server server(server_io,
                  {[&](Request, Responder responder) {
                       responder.reply(MessageType::layer_reply, "", payload_of(1 << 20, 1));
                       if (++handled == 8) first_has_most.set_value();
                   },
                   [&, told = false](ConnectionId connection) mutable {
                       if (!std::exchange(told, true)) disconnected.set_value(connection);
                   }},
                  {.unsent_bytes_total_max = 10 << 20});
    const auto endpoint = server.listen({.path = folder.path() + "/s"});
    RawPeer first(*endpoint), second(*endpoint);
    for (std::uint64_t i = 1; i <= 8; ++i) first.send({.type = MessageType::layer, .request = i});
    first_has_most.get_future().wait();

    for (std::uint64_t i = 1; i <= 6; ++i) second.send({.type = MessageType::layer, .request = i});

    EXPECT_EQ(disconnected.get_future().get(), 1u);
    for (int i = 0; i < 6; ++i) EXPECT_TRUE(second.read_frame()) << i;
}

TEST_F(HostilePeer, NothingMoreIsReadFromAPeerWhileItsRequestsHoldMuch) {
    constexpr std::size_t kRequestBytes = 1 << 20;
    std::vector<Responder> waiting;
    int came = 0;
    std::promise<void> two_came;
    Server server(server_io,
                  {[&](Request, Responder responder) {
                       waiting.push_back(std::move(responder));
                       if (++came == 2) two_came.set_value();
                   },
                   {}},
                  {.request_bytes_in_flight_max = 2 * kRequestBytes});
    RawPeer peer(*server.listen({.path = folder.path() + "/s"}));
    const std::string body(kRequestBytes, 'p');
    auto sender = std::async(std::launch::async, [&] {
        for (std::uint64_t i = 1; i <= 6; ++i)
            peer.send({.type = MessageType::layer, .request = i, .payload_bytes = kRequestBytes}, body);
    });
    two_came.get_future().wait();

    for (std::uint64_t i = 1; i <= 6; ++i) {
        std::promise<std::size_t> most;
        server_io.post([&] {
            most.set_value(waiting.size());
            if (!waiting.empty()) waiting.front().reply(MessageType::layer_reply, {});
            if (!waiting.empty()) waiting.erase(waiting.begin());
        });
        EXPECT_LE(most.get_future().get(), 2u);
        ASSERT_EQ(peer.read_frame()->header.request, i);
        if (i == 6) break;
        // The next one may still be on its way.
        std::promise<void> there;
        const auto poll = server_io.every(milliseconds(1), [&, told = false]() mutable {
            if (!waiting.empty() && !std::exchange(told, true)) there.set_value();
        });
        there.get_future().wait();
    }
}

// Many connections that each stay below their own bound share this one.
TEST_F(HostilePeer, EachPeerHasOneRequestUnderWayWhileAllOfThemHoldMuch) {
    std::vector<Responder> waiting;
    std::map<ConnectionId, int> under_way;
    Server server(server_io,
                  {[&](Request request, Responder responder) {
                       EXPECT_EQ(++under_way[request.connection], 1);
                       waiting.push_back(std::move(responder));
                   },
                   {},
                   [&](const Answered&) { under_way.clear(); }},
                  {.request_bytes_total_max = 1});
    const auto endpoint = server.listen({.path = folder.path() + "/s"});
    RawPeer one(*endpoint), other(*endpoint);
    for (RawPeer* peer : {&one, &other}) {
        for (std::uint64_t i = 1; i <= 3; ++i)
            peer->send({.type = MessageType::layer, .request = i, .payload_bytes = 4}, "body");
    }

    for (int round = 0; round < 3; ++round) {
        std::promise<void> both_there;
        const auto poll = server_io.every(milliseconds(1), [&, told = false]() mutable {
            if (waiting.size() == 2 && !std::exchange(told, true)) both_there.set_value();
        });
        both_there.get_future().wait();
        server_io.post([&] {
            for (Responder& responder : std::exchange(waiting, {})) responder.reply(MessageType::layer_reply, {});
        });
        EXPECT_TRUE(one.read_frame());
        EXPECT_TRUE(other.read_frame());
    }
}

TEST_F(HostilePeer, AReaderThatTakesNothingInTimeIsDisconnected) {
    std::promise<void> disconnected;
    Server server(
        server_io,
        {[](Request, Responder responder) { responder.reply(MessageType::layer_reply, "", payload_of(4 << 20, 1)); },
         [&](ConnectionId) { disconnected.set_value(); }},
        {.frame_timeout = milliseconds(30)});
    RawPeer peer(*server.listen({.path = folder.path() + "/s"}));

    peer.send({.type = MessageType::layer, .request = 1});

    disconnected.get_future().wait();
}

TEST_F(HostilePeer, AConnectionOverTheBoundIsToldBusy) {
    Server server(server_io, {echo, {}}, {.connections_max = 1});
    const auto endpoint = server.listen({.host = "127.0.0.1"});
    RawPeer first(*endpoint);
    first.send({.type = MessageType::layer, .request = 1});
    ASSERT_TRUE(first.read_frame());

    RawPeer second(*endpoint);
    EXPECT_EQ(error_in(second.read_frame()), Errc::busy);
    EXPECT_TRUE(second.is_closed());

    Channel third(client_io, *endpoint);
    EXPECT_EQ(third.call(MessageType::layer, 0, "", {}, far()).error(), Errc::busy);
}

TEST_F(HostilePeer, AServerThatSpeaksGarbageEndsTheCallAsCorrupt) {
    RawListener listener;
    auto server = std::async(std::launch::async, [&] {
        RawPeer peer = listener.accept();
        peer.read_frame();
        peer.send(std::string(100, 'x'));
    });
    Channel channel(client_io, listener.endpoint());

    EXPECT_EQ(channel.call(MessageType::status, 0, "", {}, far()).error(), Errc::corrupt);
}

TEST_F(HostilePeer, AServersErrorForTheWholeConnectionEndsItsCalls) {
    RawListener listener;
    auto server = std::async(std::launch::async, [&] {
        RawPeer peer = listener.accept();
        peer.read_frame();
        const std::string message = pack(to_wire({Errc::unsupported, "frame version 1"}));
        peer.send({.type = MessageType::error, .message_bytes = static_cast<std::uint32_t>(message.size())}, message);
    });
    Channel channel(client_io, listener.endpoint());

    const auto reply = channel.call(MessageType::status, 0, "", {}, far());
    EXPECT_EQ(reply.error(), Errc::unsupported);
    EXPECT_EQ(reply.error().message, "frame version 1");
}

TEST_F(HostilePeer, AServerThatClosesEndsTheCallAsUnavailable) {
    RawListener listener;
    auto server = std::async(std::launch::async, [&] { listener.accept().read_frame(); });
    Channel channel(client_io, listener.endpoint());

    EXPECT_EQ(channel.call(MessageType::status, 0, "", {}, far()).error(), Errc::unavailable);
}

TEST_F(HostilePeer, AnAnswerToNoCallIsIgnored) {
    RawListener listener;
    auto server = std::async(std::launch::async, [&] {
        RawPeer peer = listener.accept();
        const auto request = peer.read_frame();
        peer.send({.type = MessageType::empty, .request = 12345});
        peer.send({.type = MessageType::empty, .request = request->header.request});
        peer.is_closed();
    });
    {
        Channel channel(client_io, listener.endpoint());
        EXPECT_TRUE(channel.call(MessageType::status, 0, "", {}, far()).ok());
    }
    server.wait();
}

}  // namespace
}  // namespace kvgrid::comm
