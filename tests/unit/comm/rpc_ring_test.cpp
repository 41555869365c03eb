// A channel and a server that share a ring use it while both look, keep to the socket where it is refused, and survive what the other writes
// there. The other side is played here, frame by frame.

#include <future>
#include <thread>

#include "comm/rpc/frame_ring.h"
#include "comm/wire/messages.h"
#include "tests/unit/comm/rpc_harness.h"

namespace kvgrid::comm {
namespace {

using std::chrono::milliseconds;

template <class Condition>
bool comes_true(const Condition& condition) {
    const Deadline deadline = deadline_in(std::chrono::seconds(20));
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::yield();
    }
    return true;
}

std::string share(const SharedRegion& region, std::size_t bytes = FrameRing::bytes()) {
    wire::ShareMemoryRequest request;
    request.set_file(region.file());
    request.set_bytes(bytes);
    return pack(request);
}

// A thread that does a server's I/O work, and so looks at its rings, until it is told to go.
class Looker {
  public:
    explicit Looker(IoThread& io)
        : thread_([this, &io] {
              while (!ended_) {
                  IoThread::StandIn here(io);
                  while (here && !ended_) here.work_off();
              }
          }) {}
    ~Looker() { ended_ = true; }

  private:
    std::atomic<bool> ended_ = false;
    std::jthread thread_;
};

struct RingServer : ::testing::Test {
    void SetUp() override {
        server.emplace(io, Server::Handlers{echo, [this](ConnectionId) { ++disconnects; }});
        const auto bound = server->listen({.path = folder.path() + "/s"});
        peer.emplace(*bound);
    }

    std::optional<Frame> ask(MessageType type, std::string_view body) {
        peer->send({.type = type, .request = ++requests, .message_bytes = static_cast<std::uint32_t>(body.size())},
                   body);
        return peer->read_frame();
    }

    TemporaryFolder folder;
    IoThread io;
    std::optional<Server> server;
    std::optional<RawPeer> peer;
    std::uint64_t requests = 0;
    std::atomic<int> disconnects = 0;
    const std::shared_ptr<SharedRegion> region = SharedRegion::make(FrameRing::bytes()).value();
    FrameRing ring{region, FrameRing::Side::client};
};

TEST_F(RingServer, AnswersThereWhileItsPeerLooks) {
    ASSERT_EQ(ask(MessageType::share_ring, share(*region))->header.type, MessageType::empty);
    const Looker looker(io);
    ring.set_looking(true);
    for (std::uint64_t request = 100; request < 200; ++request) {
        const std::string message(request % 70, 'm');
        ASSERT_TRUE(comes_true([&] {
            return ring.send({.type = MessageType::layer, .request = request}, message) != FrameRing::Sent::no;
        }));
        ASSERT_TRUE(comes_true([&] { return ring.holds_frame(); })) << request;
        const auto answer = ring.receive();
        EXPECT_EQ((*answer)->header.request, request);
        EXPECT_EQ((*answer)->message, message);
    }
}

TEST_F(RingServer, AnswersOverTheSocketToAPeerThatSleeps) {
    ASSERT_EQ(ask(MessageType::share_ring, share(*region))->header.type, MessageType::empty);
    const Looker looker(io);
    ASSERT_TRUE(comes_true(
        [&] { return ring.send({.type = MessageType::layer, .request = 7}, "by ring") != FrameRing::Sent::no; }));
    const auto answer = peer->read_frame();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->header.request, 7u);
    EXPECT_EQ(answer->message, "by ring");
}

// Nobody does the work of this server but its own thread, which sleeps: it reads the ring when it is told to, and before the next request.
TEST_F(RingServer, ThatSleepsLooksWhenItIsTold) {
    ASSERT_EQ(ask(MessageType::share_ring, share(*region))->header.type, MessageType::empty);
    FrameRing(region, FrameRing::Side::server).set_looking(true);  // as it would have said just before
    ASSERT_EQ(ring.send({.type = MessageType::layer, .request = 7}, "first"), FrameRing::Sent::seen);
    peer->send({.type = MessageType::look});
    EXPECT_EQ(peer->read_frame()->message, "first");

    ASSERT_EQ(ring.send({.type = MessageType::layer, .request = 8}, "second"), FrameRing::Sent::seen);
    EXPECT_EQ(ask(MessageType::layer, "third")->message, "second");
    EXPECT_EQ(peer->read_frame()->message, "third");
}

TEST_F(RingServer, RefusesMemoryThatIsNone) {
    const auto small = SharedRegion::make(4'096).value();
    EXPECT_EQ(error_in(ask(MessageType::share_ring, share(*region, 100))), Errc::invalid_argument);
    EXPECT_EQ(error_in(ask(MessageType::share_ring, share(*small))), Errc::invalid_argument);
    EXPECT_EQ(error_in(ask(MessageType::share_ring, "no message")), Errc::corrupt);
    EXPECT_EQ(ask(MessageType::layer, "still here")->message, "still here");
}

TEST_F(RingServer, BreaksOffAPeerThatWritesNonsense) {
    ASSERT_EQ(ask(MessageType::share_ring, share(*region))->header.type, MessageType::empty);
    FrameRing(region, FrameRing::Side::server).set_looking(true);
    ring.send({.type = MessageType::empty, .request = 7}, "an answer");
    peer->send({.type = MessageType::look});
    EXPECT_TRUE(peer->is_closed());
    EXPECT_TRUE(comes_true([&] { return disconnects == 1; }));
    EXPECT_EQ(server->connections().broken_off, 1u);
}

struct RingChannel : ::testing::Test {
    // The server's side of a ring that the channel offers; its request is answered.
    void take_ring() {
        const auto frame = peer.read_frame();
        ASSERT_TRUE(frame);
        ASSERT_EQ(frame->header.type, MessageType::share_ring);
        const auto message = unpack<wire::ShareMemoryRequest>(*frame);
        auto opened = SharedRegion::open(getpid(), message->file(), message->bytes());
        ASSERT_TRUE(opened);
        ring.emplace(*opened, FrameRing::Side::server);
        peer.send({.type = MessageType::empty, .request = frame->header.request});
    }
    std::future<Result<Frame>> ask(std::string message) {
        return std::async(std::launch::async, [this, message = std::move(message)] {
            return channel.call(MessageType::status, 0, message, {}, far());
        });
    }
    // One call over the socket, which makes the connection.
    void connect() {
        auto reply = ask("hello");
        peer = listener.accept();
        const auto request = peer.read_frame();
        ASSERT_TRUE(request);
        take_ring();
        peer.send({.type = MessageType::status_reply, .request = request->header.request});
        ASSERT_TRUE(reply.get());
    }

    TemporaryFolder folder;
    RawListener listener{folder.path() + "/s"};
    RawPeer peer{-1};
    IoThread io;
    std::optional<FrameRing> ring;
    Channel channel{io, listener.endpoint(), {.ring = true}};
};

TEST_F(RingChannel, AsksAndIsAnsweredThere) {
    connect();
    ASSERT_TRUE(ring);
    ring->set_looking(true);
    for (int call = 0; call < 50; ++call) {
        auto reply = ask(std::to_string(call));
        ASSERT_TRUE(comes_true([&] { return ring->holds_frame(); }));
        const auto request = ring->receive();
        EXPECT_EQ((*request)->message, std::to_string(call));
        const FrameHeader header{.type = MessageType::status_reply, .request = (*request)->header.request};
        if (ring->send(header, "answer") != FrameRing::Sent::seen) {
            peer.send(header);  // it may have gone to sleep: either of the two answers counts
            peer.send({.type = MessageType::look});
        }
        const auto answer = reply.get();
        ASSERT_TRUE(answer);
        EXPECT_TRUE(answer->message == "answer" || answer->message.empty());
    }
}

TEST_F(RingChannel, SendsNothingPastACallOnTheSocket) {
    connect();
    auto first = ask("by socket");  // nobody looks
    const auto by_socket = peer.read_frame();
    ASSERT_TRUE(by_socket);
    ring->set_looking(true);
    auto second = ask("behind it");
    EXPECT_EQ(peer.read_frame()->message, "behind it");
    EXPECT_FALSE(ring->holds_frame());
    for (const std::uint64_t request : {by_socket->header.request, by_socket->header.request + 1}) {
        peer.send({.type = MessageType::status_reply, .request = request});
    }
    EXPECT_TRUE(first.get());
    EXPECT_TRUE(second.get());
    auto third = ask("by ring");
    EXPECT_TRUE(comes_true([&] { return ring->holds_frame(); }));
    peer.send({.type = MessageType::status_reply, .request = by_socket->header.request + 2});
    EXPECT_TRUE(third.get());
}

TEST_F(RingChannel, PostsWithoutAPayloadGoThereAndOthersOverTheSocket) {
    connect();
    ring->set_looking(true);
    ASSERT_TRUE(channel.post(MessageType::operation, 0, "with a payload", Payload::own(std::vector<std::byte>(9))));
    const auto by_socket = peer.read_frame();
    ASSERT_TRUE(by_socket);
    EXPECT_EQ(by_socket->message, "with a payload");
    ASSERT_TRUE(channel.post(MessageType::operation, 0, "without", {}));
    ASSERT_TRUE(comes_true([&] { return ring->holds_frame(); }));
    EXPECT_EQ((*ring->receive())->message, "without");
}

TEST_F(RingChannel, KeepsToTheSocketWhereItsRingIsRefused) {
    auto reply = ask("hello");
    peer = listener.accept();
    for (int frames = 0; frames < 2; ++frames) {
        const auto frame = peer.read_frame();
        ASSERT_TRUE(frame);
        const bool is_ring = frame->header.type == MessageType::share_ring;
        const std::string body = is_ring ? pack(to_wire(Error{Errc::unsupported, "no"})) : "";
        peer.send({.type = is_ring ? MessageType::error : MessageType::status_reply,
                   .request = frame->header.request,
                   .message_bytes = static_cast<std::uint32_t>(body.size())},
                  body);
    }
    ASSERT_TRUE(reply.get());
    auto another = ask("again");
    const auto frame = peer.read_frame();
    ASSERT_TRUE(frame);
    peer.send({.type = MessageType::status_reply, .request = frame->header.request});
    EXPECT_TRUE(another.get());
}

TEST_F(RingChannel, EndsCallsWhoseServerWritesNonsense) {
    connect();
    auto reply = ask("question");
    ASSERT_TRUE(peer.read_frame());
    ring->send({.type = MessageType::status}, "a request");
    ring->send({.type = MessageType::status}, "a request");
    peer.send({.type = MessageType::look});
    peer.send(FrameHeader{.type = MessageType::status});  // if nobody looked at the ring when it was written
    const auto answer = reply.get();
    ASSERT_FALSE(answer);
}

}  // namespace
}  // namespace kvgrid::comm
