#pragma once

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "comm/rpc/channel.h"
#include "comm/wire/messages.h"
#include "coordinator/server.h"
#include "tests/unit/coordinator/fake_lead.h"
#include "tests/unit/coordinator/temporary_directory.h"
#include "tests/unit/core/model_spec_fixture.h"

namespace kvgrid::coordinator {

using comm::MessageType;
using namespace std::chrono_literals;

inline constexpr std::uint64_t kWorkerMemory = 64 << 20;

// A coordinator for two workers, behind a real socket; the test speaks for the workers and the clients, and a FakeLead for the grid.
// The clock moves, and ticks come, only when the test says so.
class ClusterTest : public ::testing::Test {
  protected:
    ClusterTest() { start(); }
    ~ClusterTest() override { stop(); }

    void start(int expected_workers = 2) {
        Coordinator::Options options{.membership = {.expected_workers = expected_workers, .dead_after = 2000ms},
                                     .heartbeat = 1h};
        auto made = Coordinator::start(io, clock, Catalogue::open(directory.path() / "state").value(), options);
        ASSERT_TRUE(made) << made.error().to_string();
        coordinator = made->get();
        server = std::make_unique<CoordinatorServer>(io, *std::move(made));
        const auto endpoint = comm::parse_endpoint("unix:" + (directory.path() / "coordinator").string()).value();
        server->listen(endpoint, false).value();
        channel = std::make_unique<comm::Channel>(io, endpoint);
    }
    void stop() {
        channel.reset();
        server.reset();
    }
    void restart(int expected_workers = 2) {
        stop();
        start(expected_workers);
    }

    // Time passes, with a tick for every 100 ms.
    void pass(std::chrono::milliseconds time) {
        std::promise<void> passed;
        io.post([&] {
            for (auto left = time; left > 0ms; left -= 100ms) {
                clock.advance(100ms);
                coordinator->tick();
            }
            passed.set_value();
        });
        passed.get_future().wait();
    }

    template <class Reply>
    Result<Reply> ask(MessageType type, const google::protobuf::MessageLite& message,
                      std::chrono::milliseconds timeout = 20s) {
        auto frame = channel->call(type, 0, comm::pack(message), {}, deadline_in(timeout));
        if (!frame) return frame.error();
        return comm::unpack<Reply>(*frame);
    }

    Result<wire::RegisterWorkerReply> register_worker(std::uint64_t incarnation, int mpi_rank,
                                                      std::uint64_t memory_bytes = kWorkerMemory) {
        wire::RegisterWorkerRequest request;
        request.set_incarnation(incarnation);
        request.set_endpoint(mpi_rank == 0 ? lead_endpoint : "127.0.0.1:" + std::to_string(7100 + mpi_rank));
        request.set_host("x");
        request.set_process_id(static_cast<std::int32_t>(incarnation));
        request.set_mpi_rank(mpi_rank);
        request.set_memory_bytes(memory_bytes);
        return ask<wire::RegisterWorkerReply>(MessageType::register_worker, request);
    }

    Result<wire::HeartbeatReply> heartbeat(std::uint64_t worker, std::uint64_t generation, bool ready = true,
                                           std::vector<wire::Occupancy> pools = {}) {
        wire::HeartbeatRequest request;
        request.set_worker(worker);
        request.set_generation(generation);
        request.set_ready(ready);
        request.set_version("0.0.9");
        for (const wire::Occupancy& pool : pools) *request.add_models() = pool;
        return ask<wire::HeartbeatReply>(MessageType::heartbeat, request);
    }

    // Of the first generation's workers, which register again where they are told to.
    void heartbeats() {
        for (const std::uint64_t worker : {1, 2}) {
            if (heartbeat(worker, 1)) continue;
            ASSERT_EQ(register_worker(100 + worker, static_cast<int>(worker) - 1)->worker(), worker);
            ASSERT_TRUE(heartbeat(worker, 1));
        }
    }

    wire::StatusReply status() { return ask<wire::StatusReply>(MessageType::status, wire::StatusRequest{}).value(); }

    // Asks until it is so, which takes no time of the clock; ten seconds at the most.
    wire::StatusReply wait_until_ready() {
        const Deadline deadline = deadline_in(10s);
        wire::StatusReply reply = status();
        while (!reply.ready() && std::chrono::steady_clock::now() < deadline) reply = status();
        EXPECT_TRUE(reply.ready()) << reply.not_ready_because();
        return reply;
    }

    // Workers of these incarnations form the next generation, and the grid is ready when the lead holds all models.
    void form_grid(std::uint64_t first_incarnation = 101) {
        const auto one = register_worker(first_incarnation, 0).value();
        const auto two = register_worker(first_incarnation + 1, 1).value();
        const std::uint64_t generation = two.membership().generation();
        ASSERT_NE(generation, 0u);
        ASSERT_TRUE(heartbeat(one.worker(), generation));
        ASSERT_TRUE(heartbeat(two.worker(), generation));
    }

    Result<wire::ModelReply> register_model(const ModelSpec& spec, std::uint64_t pool_bytes = 0,
                                            std::chrono::milliseconds timeout = 20s, GridShape shape = {0, 0}) {
        wire::RegisterModelRequest request;
        request.set_spec_json(to_json(spec));
        request.set_pool_bytes_per_worker(pool_bytes);
        request.set_head_parts(shape.head_parts);
        request.set_sequence_parts(shape.sequence_parts);
        return ask<wire::ModelReply>(MessageType::register_model, request, timeout);
    }

    Result<wire::SequenceReply> open(std::uint64_t model, std::int64_t expected_tokens = 0,
                                     std::chrono::milliseconds timeout = 20s) {
        wire::OpenSequenceRequest request;
        request.set_model(model);
        request.set_tenant("t");
        request.set_expected_tokens(expected_tokens);
        return ask<wire::SequenceReply>(MessageType::open_sequence, request, timeout);
    }

    Result<wire::SequenceReply> fork(std::uint64_t sequence) {
        return ask<wire::SequenceReply>(MessageType::fork_sequence, named(sequence));
    }
    Result<wire::Empty> close(std::uint64_t sequence, std::chrono::milliseconds timeout = 20s) {
        return ask<wire::Empty>(MessageType::close_sequence, named(sequence), timeout);
    }

    int model_count() {
        return ask<wire::ListModelsReply>(MessageType::list_models, wire::Empty{}).value().models_size();
    }
    std::vector<std::uint64_t> sequences(std::uint64_t model = 0) {
        wire::ListSequencesRequest request;
        request.set_model(model);
        std::vector<std::uint64_t> ids;
        const auto reply = ask<wire::ListSequencesReply>(MessageType::list_sequences, request).value();
        for (const auto& sequence : reply.sequences()) ids.push_back(sequence.sequence());
        return ids;
    }
    // Also those that nobody was given.
    std::size_t catalogued_sequence_count() {
        std::promise<std::size_t> count;
        io.post([&] { count.set_value(coordinator->catalogue().sequences().value().size()); });
        return count.get_future().get();
    }

    static wire::SequenceRequest named(std::uint64_t sequence) {
        wire::SequenceRequest request;
        request.set_sequence(sequence);
        return request;
    }

    TemporaryDirectory directory;
    const std::string lead_endpoint = "unix:" + (directory.path() / "lead").string();
    ManualClock clock;  // moved on the I/O thread
    comm::IoThread io;
    FakeLead lead{io, lead_endpoint};
    Coordinator* coordinator = nullptr;  // on the I/O thread
    std::unique_ptr<CoordinatorServer> server;
    std::unique_ptr<comm::Channel> channel;
};

}  // namespace kvgrid::coordinator
