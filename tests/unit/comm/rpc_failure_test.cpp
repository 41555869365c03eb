// Every call ends exactly once and says how: with the server's error, with the deadline, or with the connection. A channel outlives its
// server, and servers and channels may be destroyed at any moment.

#include <atomic>
#include <future>
#include <optional>
#include <vector>

#include "tests/unit/comm/rpc_harness.h"

namespace kvgrid::comm {
namespace {

using std::chrono::milliseconds;

struct RpcFailure : ::testing::Test {
    Endpoint local(const char* name = "s") { return {.path = folder.path() + "/" + name}; }

    static Result<Frame> ask(Channel& channel, Deadline deadline = far()) {
        return channel.call(MessageType::status, 0, "", {}, deadline);
    }

    // Starts a call; what it ends with is in the future.
    static std::future<Result<Frame>> begin(Channel& channel, Deadline deadline = far()) {
        auto end = std::make_shared<std::promise<Result<Frame>>>();
        channel.call(MessageType::status, 0, "", {}, deadline,
                     [end](Result<Frame> reply) { end->set_value(std::move(reply)); });
        return end->get_future();
    }

    TemporaryFolder folder;
    IoThread server_io;
    IoThread client_io;
};

// A server that keeps each request unanswered.
struct Holder {
    explicit Holder(IoThread& io, ServerLimits limits = {})
        : server(io,
                 {[this](Request, Responder responder) {
                      held.push_back(std::move(responder));
                      if (arrived) std::exchange(arrived, nullptr)();
                  },
                  [this](ConnectionId) {
                      if (disconnected) disconnected();
                  }},
                 limits) {}

    std::vector<Responder> held;  // of the I/O thread
    std::function<void()> arrived;
    std::function<void()> disconnected;
    Server server;
};

TEST_F(RpcFailure, TheServersErrorIsTheCallsResult) {
    Server server(server_io, {[](Request, Responder responder) {
                                  responder.fail({Errc::no_room, "needs 6 pages"});
                              },
                              {}});
    Channel channel(client_io, *server.listen(local()));

    const auto reply = ask(channel);

    EXPECT_EQ(reply.error(), Errc::no_room);
    EXPECT_EQ(reply.error().message, "needs 6 pages");
}

TEST_F(RpcFailure, ADroppedRequestIsAnsweredInternal) {
    Server server(server_io, {[](Request, Responder) {}, {}});
    Channel channel(client_io, *server.listen(local()));

    EXPECT_EQ(ask(channel).error(), Errc::internal);
}

TEST_F(RpcFailure, AResponderThatIsAssignedToAnswersTheOldRequestAsDropped) {
    Holder holder(server_io);
    Channel channel(client_io, *holder.server.listen(local()));
    std::promise<void> arrived;
    holder.arrived = [&] { arrived.set_value(); };
    auto call = begin(channel);
    arrived.get_future().wait();

    server_io.post([&] { holder.held.front() = Responder(); });

    EXPECT_EQ(call.get().error(), Errc::internal);
}

TEST_F(RpcFailure, AnAnswerOverItsTypesLimitBecomesInternal) {
    Server server(
        server_io,
        {[](Request, Responder responder) { responder.reply(MessageType::empty, std::string(1 << 20, 'x')); }, {}});
    Channel channel(client_io, *server.listen(local()));

    EXPECT_EQ(ask(channel).error(), Errc::internal);
}

TEST_F(RpcFailure, ARequestOverItsTypesLimitIsNotSent) {
    Server server(server_io, {echo, {}});
    Channel channel(client_io, *server.listen(local()));

    EXPECT_EQ(channel.call(MessageType::status, 0, std::string(1 << 20, 'x'), {}, far()).error(),
              Errc::invalid_argument);
    EXPECT_EQ(channel.call(MessageType::status, 0, "", payload_of(1, 1), far()).error(), Errc::invalid_argument);
    EXPECT_EQ(channel.post(MessageType::status, 0, std::string(1 << 20, 'x'), {}).error(), Errc::invalid_argument);
    EXPECT_EQ(server.connection_count(), 0);
}

TEST_F(RpcFailure, ACallThatIsNeverAnsweredEndsAtItsDeadline) {
    Holder holder(server_io);
    std::promise<void> arrived;
    holder.arrived = [&] { arrived.set_value(); };
    Channel channel(client_io, *holder.server.listen(local()));
    auto patient = begin(channel);
    arrived.get_future().wait();  // so that the other call finds a connection

    const TimePoint before = std::chrono::steady_clock::now();
    EXPECT_EQ(ask(channel, deadline_in(milliseconds(30))).error(), Errc::deadline_exceeded);
    EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(30));

    server_io.post([&] { holder.held.front().reply(MessageType::empty, ""); });
    EXPECT_TRUE(patient.get().ok());
}

TEST_F(RpcFailure, AnAnswerAfterTheDeadlineIsDroppedAndTheNextCallGetsItsOwn) {
    Holder holder(server_io);
    std::promise<void> arrived;
    holder.arrived = [&] { arrived.set_value(); };
    Channel channel(client_io, *holder.server.listen(local()));
    auto first = begin(channel);
    arrived.get_future().wait();  // there is a connection
    server_io.post([&] {
        holder.held.front().reply(MessageType::status_reply, "");
        holder.held.clear();
    });
    ASSERT_TRUE(first.get().ok());
    ASSERT_EQ(ask(channel, deadline_in(milliseconds(10))).error(), Errc::deadline_exceeded);
    auto next = begin(channel);

    server_io.post([&] { holder.held.front().reply(MessageType::model_reply, ""); });
    auto timer = server_io.every(milliseconds(1), [&] {
        if (holder.held.size() == 2) {
            holder.held.back().reply(MessageType::status_reply, "");
            holder.held.clear();
        }
    });

    const auto reply = next.get();
    ASSERT_TRUE(reply.ok());
    EXPECT_EQ(reply->header.type, MessageType::status_reply);
}

TEST_F(RpcFailure, ACallWithoutAServerIsUnavailableAtItsDeadlineAndSaysWhy) {
    Channel channel(client_io, local("nobody"));

    const auto reply = ask(channel, deadline_in(milliseconds(30)));

    EXPECT_EQ(reply.error(), Errc::unavailable);
    EXPECT_NE(reply.error().message.find("No such file"), std::string::npos) << reply.error().message;
}

TEST_F(RpcFailure, ACallWaitsForAServerThatComesLater) {
    Channel channel(client_io, local());
    auto call = begin(channel);
    Server server(server_io, {echo, {}});

    ASSERT_TRUE(server.listen(local()).ok());

    EXPECT_TRUE(call.get().ok());
}

TEST_F(RpcFailure, AServerThatGoesEndsItsCallsAndTheChannelFindsTheNextOne) {
    auto holder = std::make_unique<Holder>(server_io);
    Channel channel(client_io, *holder->server.listen(local()));
    std::promise<void> lost;
    channel.on_disconnect([&] { lost.set_value(); });
    std::promise<void> arrived;
    holder->arrived = [&] { arrived.set_value(); };
    auto call = begin(channel);
    arrived.get_future().wait();

    holder.reset();

    EXPECT_EQ(call.get().error(), Errc::unavailable);
    lost.get_future().wait();
    Server next(server_io, {echo, {}});
    ASSERT_TRUE(next.listen(local()).ok());
    EXPECT_TRUE(ask(channel).ok());
    channel.on_disconnect(nullptr);
}

TEST_F(RpcFailure, APostWithoutAConnectionIsUnavailableButAsksForOne) {
    std::promise<void> arrived;
    Server server(server_io, {[&](Request, Responder) { arrived.set_value(); }, {}});
    Channel channel(client_io, *server.listen(local()));

    EXPECT_EQ(channel.post(MessageType::operation, 0, "", {}).error(), Errc::unavailable);

    while (!channel.post(MessageType::operation, 0, "", {}).ok()) std::this_thread::yield();
    arrived.get_future().wait();
}

TEST_F(RpcFailure, CallsOverTheBoundAreBusy) {
    Holder holder(server_io);
    Channel channel(client_io, *holder.server.listen(local()), {.calls_in_flight_max = 2});
    auto first = begin(channel), second = begin(channel);

    EXPECT_EQ(ask(channel).error(), Errc::busy);

    std::promise<void> arrived;
    auto timer = server_io.every(milliseconds(1), [&] {
        if (holder.held.size() == 2) holder.held.clear();
    });
    EXPECT_EQ(first.get().error(), Errc::internal);
    EXPECT_EQ(second.get().error(), Errc::internal);
    timer.reset();
    EXPECT_EQ(ask(channel, deadline_in(milliseconds(10))).error(), Errc::deadline_exceeded);
}

TEST_F(RpcFailure, BytesOverTheBoundAreBusyUntilOthersHaveGone) {
    Channel channel(client_io, local("nobody"), {.unsent_bytes_max = 10'000});
    auto waiting = [&](Deadline deadline) {
        return channel.call(MessageType::layer, 0, "", payload_of(9'000, 1), deadline);
    };
    std::promise<Errc> kept;
    channel.call(MessageType::layer, 0, "", payload_of(9'000, 1), deadline_in(milliseconds(40)),
                 [&](Result<Frame> result) { kept.set_value(result.error().code); });

    EXPECT_EQ(waiting(deadline_in(milliseconds(1))).error(), Errc::busy);
    EXPECT_EQ(kept.get_future().get(), Errc::unavailable);
    EXPECT_EQ(waiting(deadline_in(milliseconds(1))).error(), Errc::unavailable);
}

TEST_F(RpcFailure, ADestroyedChannelEndsItsCalls) {
    Holder holder(server_io);
    auto channel = std::make_unique<Channel>(client_io, *holder.server.listen(local()));
    std::promise<void> arrived;
    holder.arrived = [&] { arrived.set_value(); };
    auto sent = begin(*channel);
    arrived.get_future().wait();
    auto unconnected = std::make_unique<Channel>(client_io, local("nobody"));
    auto waiting = begin(*unconnected);

    channel.reset();
    unconnected.reset();

    EXPECT_EQ(sent.get().error(), Errc::unavailable);
    EXPECT_EQ(waiting.get().error(), Errc::unavailable);
}

TEST_F(RpcFailure, AChannelMayBeDestroyedByACallbackOfItsOwn) {
    Server server(server_io, {echo, {}});
    auto channel = std::make_unique<Channel>(client_io, *server.listen(local()));
    std::promise<void> done;

    channel->call(MessageType::layer, 0, "", {}, far(), [&](Result<Frame>) {
        channel.reset();
        done.set_value();
    });

    done.get_future().wait();
}

TEST_F(RpcFailure, AnAnswerAfterTheServersEndDoesNothing) {
    std::vector<Responder> kept;
    {
        Holder holder(server_io);
        Channel channel(client_io, *holder.server.listen(local()));
        ASSERT_EQ(ask(channel, deadline_in(milliseconds(20))).error(), Errc::deadline_exceeded);
        std::promise<void> moved;
        server_io.post([&] {
            kept = std::move(holder.held);
            moved.set_value();
        });
        moved.get_future().wait();
    }
    ASSERT_EQ(kept.size(), 1u);
    kept.front().reply(MessageType::empty, "");
}

TEST_F(RpcFailure, AServerIsToldOfADisconnectAfterTheLastRequest) {
    Holder holder(server_io);
    std::promise<std::size_t> requests;
    holder.disconnected = [&] { requests.set_value(holder.held.size()); };
    auto channel = std::make_unique<Channel>(client_io, *holder.server.listen(local()));
    ASSERT_EQ(ask(*channel, deadline_in(milliseconds(20))).error(), Errc::deadline_exceeded);
    ASSERT_TRUE(channel->post(MessageType::operation, 0, "", {}).ok());

    channel.reset();

    EXPECT_EQ(requests.get_future().get(), 2u);
    EXPECT_EQ(holder.server.connection_count(), 0);
}

TEST_F(RpcFailure, ASecondAnswerIsADefect) {
    Responder responder([](MessageType, const std::string&, const Payload&) {});
    responder.reply(MessageType::empty, "");

    EXPECT_THROW(responder.reply(MessageType::empty, ""), Fatal);
}

TEST_F(RpcFailure, ABlockingCallOnTheIoThreadIsADefect) {
    Channel channel(client_io, local("nobody"));
    std::promise<bool> threw;
    client_io.post([&] {
        try {
            threw.set_value(ask(channel).ok());
        } catch (const Fatal&) {
            threw.set_value(true);
        }
    });
    EXPECT_TRUE(threw.get_future().get());
}

}  // namespace
}  // namespace kvgrid::comm
