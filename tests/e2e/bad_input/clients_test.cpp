// Clients that vanish, fall silent, do not read, or do everything wrong at once: what they held comes back, memory stays bounded, and
// the other clients do not notice.

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <random>
#include <thread>

#include "comm/wire/kvgrid.pb.h"
#include "tests/e2e/bad_input/bad_input.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;
using comm::MessageType;

constexpr auto kReturnedWithin =
    2s;  // the promise: a closed connection is noticed at once, the rest is the machine's load

// Of the worker with this rank.
pid_t process_of(Client& client, int rank) {
    const ClusterStatus status = client.status().value();
    for (const ClusterWorker& worker : status.workers) {
        if (worker.rank == rank) return worker.process_id;
    }
    return 0;
}

std::size_t resident_bytes(pid_t process) {
    std::size_t total = 0, resident = 0;
    std::ifstream("/proc/" + std::to_string(process) + "/statm") >> total >> resident;
    return resident * 4096;
}

TEST_F(BadInput, AClientThatVanishesMidStepLeavesNothing) {
    const std::uint64_t abandoned = client().occupancy().value().steps_abandoned;
    const std::string payload = layer_bytes(spec(), 0, 200, 7).wire();
    {
        RawClient begun = raw_lead();
        begin(begun, trunk().id(), 200);
    }
    EXPECT_TRUE(pages_come_back(kReturnedWithin));
    {
        RawClient half_way = raw_lead();
        const StepId step = begin(half_way, trunk().id(), 200);
        EXPECT_TRUE(half_way.call(MessageType::layer, layer_message(step, 0), payload));
        half_way.send(MessageType::layer, layer_message(step, 1), payload);  // and does not wait for the answer
    }
    EXPECT_TRUE(pages_come_back(kReturnedWithin));
    {
        RawClient inside_a_frame = raw_lead();
        const StepId step = begin(inside_a_frame, trunk().id(), 200);
        const std::string message = layer_message(step, 0);
        inside_a_frame.peer().send({.type = MessageType::layer,
                                    .generation = client().status().value().generation.value,
                                    .request = 9,
                                    .message_bytes = static_cast<std::uint32_t>(message.size()),
                                    .payload_bytes = payload.size()},
                                   message + payload.substr(0, payload.size() / 2));
    }
    EXPECT_TRUE(pages_come_back(kReturnedWithin));
    {
        RawClient not_even_told = raw_lead();
        not_even_told.send(MessageType::begin_step, begin_message(model().id, {{trunk().id(), 200}}));
    }
    EXPECT_TRUE(pages_come_back(kReturnedWithin));
    EXPECT_GE(client().occupancy().value().steps_abandoned, abandoned + 3);
}

// A host that vanished closes no connection: to the lead it looks like this client, which stays connected and says nothing.
TEST(SilentClient, LosesItsStepAfterTheTimeout) {
    constexpr auto kIdleTimeout = 1s;
    E2eCluster cluster(1, {"--step-idle-timeout-ms", "1000"});
    Client& client = cluster.client();
    const RegisteredModel model = client.register_model(bad_input_spec(), {.pool_bytes_per_worker = 16 << 20}).value();
    Sequence sequence = client.open(model).value();
    const std::string before = pages_of(client);
    const StepPart part{&sequence, 100};
    Step step = client.begin({&part, 1}).value();
    EXPECT_NE(pages_of(client), before);

    EXPECT_TRUE(becomes_true(kIdleTimeout + 5s, [&] { return pages_of(client) == before; }));

    const auto told = step.layer(0, layer_bytes(model.spec, 0, 100, 7).input());
    ASSERT_EQ(told.error(), Errc::not_found);
    EXPECT_NE(told.error().message.find("was aborted because no call of it came for 1000 ms: begin it again"),
              std::string::npos)
        << told.error().message;
    EXPECT_EQ(client.occupancy().value().steps_timed_out, 1u);
    run_step(client, model.spec, sequence, 100, 7, /*commit=*/true);
    EXPECT_EQ(sequence.inspect().value().length, 100);
    sequence.close().value();
}

TEST_F(BadInput, AClientThatNeverReadsIsDisconnectedAndMemoryStaysBounded) {
    constexpr int kTokens = 4'096, kChunk = 2'048;
    constexpr std::size_t kAnswerBytes = std::size_t{kTokens} * 2 * 2 * 64 * 4;  // 4 MiB: k and v of one layer
    Sequence large = trunk().fork().value();
    for (int i = 0; i < kTokens / kChunk; ++i) {
        const StepPart part{&large, kChunk};
        Step step = client().begin({&part, 1}, StepKind::write).value();
        for (int layer : {0, 1}) {
            LayerBytes bytes = layer_bytes(spec(), layer, kChunk, 7);
            bytes.q.clear();
            step.layer(layer, bytes.input()).value();
        }
        step.commit().value();
    }
    wire::ReadKvRequest read;
    read.set_sequence(large.id().value);
    read.set_token_count(kTokens);
    const pid_t lead = process_of(client(), 0);
    large.read_kv(0, 0, kTokens).value();  // so that what one read needs is there before memory is looked at
    const std::size_t before = resident_bytes(lead);

    RawClient deaf = raw_lead();
    for (int i = 0; i < 200; ++i) deaf.send(MessageType::read_kv, comm::pack(read));  // 800 MiB of answers
    std::size_t most = 0;
    const bool cut_off = becomes_true(30s, [&] {
        ask_trunk();  // other clients are served meanwhile
        most = std::max(most, resident_bytes(lead));
        return deaf.peer().is_cut_off();
    });

    EXPECT_TRUE(cut_off);
    // Waiting answers, one beyond the bound, and those that are being made, in some copies.
    EXPECT_LT(most, before + kUnsentMax + 8 * kAnswerBytes);
    large.close().value();
}

// Operations break a generation where they do not come one after the other, so only the lead may send them.
TEST_F(BadInput, AStrangerCannotSpeakAsTheLead) {
    const ClusterStatus status = client().status().value();
    wire::LinkHello hello;
    hello.set_generation(status.generation.value);
    wire::OperationMessage operation;
    operation.set_number(1);
    operation.mutable_close()->set_sequence(trunk().id().value);
    for (const ClusterWorker& worker : status.workers) {
        RawClient stranger(worker.endpoint, status.generation);
        EXPECT_EQ(stranger.refusal(MessageType::link_hello, comm::pack(hello)),
                  worker.rank == 0 ? Errc::unsupported : Errc::busy);
        EXPECT_EQ(stranger.refusal(MessageType::operation, comm::pack(operation)), Errc::wrong_state);
        EXPECT_EQ(stranger.refusal(MessageType::operation, "\xff"), Errc::wrong_state);
    }
    EXPECT_TRUE(client().status().value().ready);
}

// ---- many at once

constexpr int kClients = 64;

// One round of everything wrong.
void misbehave(const std::string& endpoint, Generation generation, ModelId model, SequenceId sequence,
               std::uint64_t random) {
    RawClient client(endpoint, generation);
    const ModelSpec spec = bad_input_spec();
    const std::string good = layer_bytes(spec, 0, 5, 3).wire();
    switch (random % 7) {
        case 0:  // garbage
            client.peer().send(std::string(10'000, static_cast<char>(random)));
            return;
        case 1: {  // a step that it leaves open
            client.send(MessageType::begin_step, begin_message(model, {{sequence, 500}}));
            return;
        }
        case 2: {  // half a frame
            client.peer().send({.type = MessageType::layer, .request = 1, .payload_bytes = 1 << 20}, "xyz");
            return;
        }
        case 3: {  // NaN everywhere
            std::string bad = good;
            for (std::size_t at = 0; at < bad.size(); at += 4)
                store_element(reinterpret_cast<std::byte*>(bad.data()), at / 4, spec.dtype,
                              std::numeric_limits<float>::quiet_NaN());
            const auto begun = client.call(MessageType::begin_step, begin_message(model, {{sequence, 5}}));
            if (!begun) return;  // its last step is still being taken back
            const StepId step{comm::unpack<wire::BeginStepReply>(*begun).value().step()};
            EXPECT_EQ(client.refusal(MessageType::layer, layer_message(step, 0), bad), Errc::invalid_argument);
            return;
        }
        case 4:  // other people's steps
            for (std::uint64_t id = 1; id < 200; ++id) client.send(MessageType::abort_step, step_message(StepId{id}));
            client.send(MessageType::layer, layer_message(StepId{random % 200}, 0), good);
            return;
        case 5:  // requests without end, and no ear for the answers
            for (int i = 0; i < 200; ++i) client.send(MessageType::occupancy, "");
            return;
        default:  // a header for 4 GiB that never come
            client.peer().send({.type = MessageType::layer, .request = 1, .payload_bytes = std::uint64_t{4} << 30});
            return;
    }
}

// f32 outputs of the same question: other calls that share an operation change no row, but the order of additions may differ.
double largest_difference(const std::vector<std::byte>& a, const std::vector<std::byte>& b) {
    if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
    double largest = 0;
    for (std::size_t i = 0; i < a.size() / sizeof(float); ++i) {
        const double difference =
            std::abs(load_element(a.data(), i, Dtype::f32) - load_element(b.data(), i, Dtype::f32));
        if (!(difference <= largest)) largest = std::isnan(difference) ? 1e30 : difference;
    }
    return largest;
}

TEST_F(BadInput, OneOfSixtyFourClientsMisbehavesAndTheOthersGetRightAnswers) {
    constexpr int kSteps = 4;
    constexpr double kTolerance = 1e-4;  // of sums of some 150 f32 products near 1: 150 * 2^-24, with room
    const std::uint64_t seed = std::random_device()();
    SCOPED_TRACE("seed " + std::to_string(seed));
    const ClusterStatus status = client().status().value();
    const std::string lead = lead_endpoint(status);

    std::vector<std::vector<std::byte>> right;
    {
        Sequence branch = trunk().fork().value();
        for (int step = 0; step < kSteps; ++step)
            right.push_back(run_step(client(), spec(), branch, 1 + step, 100 + step, /*commit=*/true));
    }

    Sequence victim = trunk().fork().value();
    std::atomic<int> working = kClients - 1;
    std::atomic<int> wrong = 0, rounds = 0;
    std::thread misbehaving([&] {
        for (std::mt19937_64 random(seed); working > 0; ++rounds)
            misbehave(lead, status.generation, model().id, victim.id(), random());
    });
    std::vector<std::thread> behaving;
    for (int i = 0; i < kClients - 1; ++i) {
        behaving.emplace_back([&] {
            Client mine = Client::connect(cluster().endpoint(), {.timeout = 120s}).value();
            Sequence branch = mine.attach(trunk().fork().value().release()).value();
            for (int step = 0; step < kSteps; ++step) {
                const auto answer = run_step(mine, spec(), branch, 1 + step, 100 + step, /*commit=*/true);
                if (largest_difference(answer, right[step]) > kTolerance) ++wrong;
            }
            branch.close().value();
            --working;
        });
    }
    for (std::thread& each : behaving) each.join();
    misbehaving.join();

    EXPECT_EQ(wrong, 0);
    EXPECT_GT(rounds, 0);
    EXPECT_TRUE(
        becomes_true(10s, [&] { return client().close(victim.id()).ok(); }));  // busy while a step is taken back
    victim.release();
    EXPECT_TRUE(pages_come_back(kReturnedWithin));
}

}  // namespace
}  // namespace kvgrid::e2e
