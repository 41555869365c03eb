// A request gets its own reply, whatever the number of callers, the order of answers and the size of frames; over Unix sockets and over
// TCP alike.

#include <atomic>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/unit/comm/rpc_harness.h"

namespace kvgrid::comm {
namespace {

class Rpc : public ::testing::TestWithParam<const char*> {
  protected:
    Endpoint serve(Server& server) {
        const bool is_unix = std::string_view(GetParam()) == "unix";
        auto bound = server.listen(is_unix ? Endpoint{.path = folder_.path() + "/s"} : Endpoint{.host = "127.0.0.1"});
        EXPECT_TRUE(bound.ok()) << bound.error().to_string();
        return *bound;
    }

    TemporaryFolder folder_;
    IoThread server_io_;
    IoThread client_io_;
};

INSTANTIATE_TEST_SUITE_P(, Rpc, ::testing::Values("unix", "tcp"),
                         [](const auto& family) { return std::string(family.param); });

TEST_P(Rpc, ARequestComesWholeAndItsReplyComesBack) {
    std::promise<Request> arrived;
    Server server(server_io_, {[&](Request request, Responder responder) {
                                   responder.reply(MessageType::layer_reply, "answer",
                                                   request.frame.payload.slice(1, 3));
                                   arrived.set_value(std::move(request));
                               },
                               {}});
    Channel channel(client_io_, serve(server));
    const Payload sent = payload_of(100, 1);
    const TimePoint before = std::chrono::steady_clock::now();

    const auto reply = channel.call(MessageType::layer, 17, "question", sent, deadline_in(std::chrono::seconds(30)));

    ASSERT_TRUE(reply.ok()) << reply.error().to_string();
    EXPECT_EQ(reply->header.type, MessageType::layer_reply);
    EXPECT_EQ(reply->message, "answer");
    EXPECT_TRUE(same_bytes(reply->payload, sent.slice(1, 3)));
    const Request request = arrived.get_future().get();
    EXPECT_EQ(request.frame.header.type, MessageType::layer);
    EXPECT_EQ(request.frame.header.generation, 17u);
    EXPECT_EQ(request.frame.message, "question");
    EXPECT_TRUE(same_bytes(request.frame.payload, sent));
    EXPECT_NE(request.connection, 0u);
    EXPECT_GT(request.deadline, before + std::chrono::seconds(20));
    EXPECT_LT(request.deadline, before + std::chrono::seconds(60));
}

// Around the sizes of the read buffer (16 KiB) and of socket buffers.
TEST_P(Rpc, FramesOfAllSizesSurvive) {
    Server server(server_io_, {echo, {}});
    Channel channel(client_io_, serve(server));
    for (const std::size_t size : {0, 1, 63, 16'303, 16'304, 16'305, 16'384, 65'536, 1'000'003, 50'000'000}) {
        const Payload sent = payload_of(size, 2);
        const std::string message(size % 60'000, 'm');

        const auto reply = channel.call(MessageType::layer, 0, message, sent, far());

        ASSERT_TRUE(reply.ok()) << reply.error().to_string();
        EXPECT_EQ(reply->message, message) << size;
        EXPECT_TRUE(same_bytes(reply->payload, sent)) << size;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(reply->payload.bytes().data()) % 64, 0u);
    }
}

TEST_P(Rpc, ConcurrentCallsEachGetTheirOwnReply) {
    Server server(server_io_, {echo, {}});
    Channel channel(client_io_, serve(server));
    std::atomic<int> right = 0;
    {
        std::vector<std::jthread> callers;
        for (unsigned caller = 0; caller < 4; ++caller) {
            callers.emplace_back([&, caller] {
                for (unsigned i = 0; i < 100; ++i) {
                    const Payload sent = payload_of(i * 50, caller * 1'000 + i);
                    const auto reply = channel.call(MessageType::layer, 0, "", sent, far());
                    if (reply.ok() && same_bytes(reply->payload, sent)) ++right;
                }
            });
        }
    }
    EXPECT_EQ(right, 400);
}

TEST_P(Rpc, AnswersMayComeInAnotherOrderAndFromAnotherThread) {
    std::vector<std::pair<std::string, Responder>> held;
    std::promise<void> all_arrived;
    Server server(server_io_, {[&](Request request, Responder responder) {
                                   held.emplace_back(request.frame.message, std::move(responder));
                                   if (held.size() == 3) all_arrived.set_value();
                               },
                               {}});
    Channel channel(client_io_, serve(server));
    std::vector<std::future<std::string>> replies;
    for (const char* name : {"a", "b", "c"}) {
        auto reply = std::make_shared<std::promise<std::string>>();
        replies.push_back(reply->get_future());
        channel.call(MessageType::status, 0, name, {}, far(),
                     [reply](Result<Frame> frame) { reply->set_value(frame->message); });
    }
    all_arrived.get_future().wait();

    for (auto one = held.rbegin(); one != held.rend(); ++one)
        one->second.reply(MessageType::status_reply, one->first + "!");

    EXPECT_EQ(replies[0].get(), "a!");
    EXPECT_EQ(replies[1].get(), "b!");
    EXPECT_EQ(replies[2].get(), "c!");
}

TEST_P(Rpc, PostsAndCallsArriveInOrderAndPostsAreNotAnswered) {
    std::vector<std::string> order;
    Server server(server_io_, {[&](Request request, Responder responder) {
                                   order.push_back(request.frame.message);
                                   responder.reply(MessageType::empty, "");
                               },
                               {}});
    Channel channel(client_io_, serve(server));
    ASSERT_TRUE(channel.call(MessageType::status, 0, "first", {}, far()).ok());
    for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(channel.post(MessageType::operation, 0, std::to_string(i), payload_of(10'000, 3)).ok());
    }

    ASSERT_TRUE(channel.call(MessageType::status, 0, "last", {}, far()).ok());

    ASSERT_EQ(order.size(), 52u);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i) + 1], std::to_string(i));
    EXPECT_EQ(order.back(), "last");
}

TEST_P(Rpc, RequestsInFlightStayBelowTheirBound) {
    std::atomic<int> in_flight = 0;
    int most = 0;     // of the server's I/O thread until the last call has ended
    IoThread worker;  // answers, one after the other
    Server server(server_io_,
                  {[&](Request, Responder responder) {
                       most = std::max(most, ++in_flight);
                       auto held = std::make_shared<Responder>(std::move(responder));
                       worker.post([&, held] {
                           --in_flight;
                           held->reply(MessageType::empty, "");
                       });
                   },
                   {}},
                  {.requests_in_flight_max = 3});
    Channel channel(client_io_, serve(server));
    std::atomic<int> answered = 0;
    std::promise<void> all;
    for (int i = 0; i < 100; ++i) {
        channel.call(MessageType::status, 0, "", {}, far(), [&](Result<Frame> reply) {
            EXPECT_TRUE(reply.ok());
            if (++answered == 100) all.set_value();
        });
    }
    all.get_future().wait();

    EXPECT_GE(most, 1);
    EXPECT_LE(most, 3);
}

TEST_P(Rpc, OneServerListensOnSeveralEndpoints) {
    Server server(server_io_, {echo, {}});
    const Endpoint first = serve(server);
    const auto second = server.listen({.path = folder_.path() + "/second"});
    ASSERT_TRUE(second.ok()) << second.error().to_string();
    Channel a(client_io_, first), b(client_io_, *second);

    EXPECT_TRUE(a.call(MessageType::layer, 0, "", {}, far()).ok());
    EXPECT_TRUE(b.call(MessageType::layer, 0, "", {}, far()).ok());

    EXPECT_EQ(server.connection_count(), 2);
}

TEST_P(Rpc, ACallFromTheIoThreadIsAnsweredThere) {
    Server server(server_io_, {echo, {}});
    Channel channel(client_io_, serve(server));
    std::promise<bool> on_thread;
    client_io_.post([&] {
        channel.call(MessageType::layer, 0, "", {}, far(),
                     [&](Result<Frame> reply) { on_thread.set_value(reply.ok() && client_io_.on_this_thread()); });
    });
    EXPECT_TRUE(on_thread.get_future().get());
}

}  // namespace
}  // namespace kvgrid::comm
