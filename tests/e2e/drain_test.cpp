// Workers that are asked to end finish what is open and take on nothing new, within their time; the grid drains as one, and ends with
// status 0 however it went.

#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "tests/e2e/counting_sequence.h"
#include "tests/e2e/faulty_cluster.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 20s;

class Drain : public ::testing::Test {
  protected:
    void start(const FaultyClusterOptions& options) {
        cluster.emplace(options);
        client.emplace(cluster->connect());
        model = client->register_model(counting_spec(), {.pool_bytes_per_worker = 16 << 20}).value();
        counting.emplace(*client, client->open(model).value());
        ASSERT_TRUE(counting->step());
    }
    ~Drain() override {
        if (counting) counting->sequence().release();
    }

    // Asks all workers at once, and measures until the last has ended.
    void ask_all_to_end(int signal = SIGTERM) {
        for (const pid_t process : cluster->worker_processes()) kill(process, signal);
    }
    Milliseconds time_to_end() {
        const TimePoint start = std::chrono::steady_clock::now();
        EXPECT_TRUE(cluster->workers_end_well(kPatience)) << cluster->logs();
        return std::chrono::steady_clock::now() - start;
    }

    std::optional<FaultyCluster> cluster;
    std::optional<Client> client;
    RegisteredModel model;
    std::optional<CountingSequence> counting;
};

TEST_F(Drain, IsQuickWhenNothingIsOpen) {
    start({.workers = 2, .standbys = 1});
    ask_all_to_end();
    const Milliseconds took = time_to_end();
    std::printf("ended after %.0f ms\n", took.count());
    EXPECT_LT(took, 8s) << "the time for open steps was not waited for";
}

TEST_F(Drain, OfOneWorkerLetsOpenStepsEndAndRefusesNewOnes) {
    start({.workers = 2, .standbys = 1, .worker_options = {"--drain-timeout-ms", "60000"}});
    ASSERT_TRUE(wait_until(kPatience, [&] { return cluster->status().workers.size() == 3; }));
    const ClusterWorker peer = cluster->worker(1);
    CountingSequence other(*client, client->open(model).value());
    auto step = counting->begin();
    ASSERT_TRUE(step);

    kill(peer.process_id, SIGTERM);
    Error refused{Errc::internal, ""};
    ASSERT_TRUE(wait_until(kPatience, [&] {
        auto begun = other.begin();
        if (!begun) refused = begun.error();
        return !begun.ok();
    }));
    EXPECT_EQ(refused, Errc::unavailable);
    EXPECT_NE(refused.message.find("draining"), std::string::npos) << refused.message;
    const Error not_opened = client->open(model).error();
    EXPECT_EQ(not_opened, Errc::unavailable);
    EXPECT_NE(not_opened.message.find("draining"), std::string::npos) << not_opened.message;
    EXPECT_TRUE(cluster->worker(1).draining);

    const Status finished = counting->finish(std::move(*step));
    EXPECT_TRUE(finished) << finished.error().to_string();
    const auto left = wait_until(kPatience, [&] { return kill(peer.process_id, 0) != 0; });
    ASSERT_TRUE(left);
    std::printf("worker ended %.0f ms after the last step\n", left->count());
    other.sequence().release();

    std::optional<CountingSequence> fresh;
    const auto again = wait_until(kPatience, [&] {
        if (auto opened = client->open(model)) fresh.emplace(*client, std::move(*opened));
        return fresh.has_value();
    });
    ASSERT_TRUE(again) << cluster->status().not_ready_because;
    std::printf("the standby serves %.0f ms later\n", again->count());
    EXPECT_TRUE(fresh->step());
    fresh->sequence().release();
    ask_all_to_end();
    time_to_end();
}

TEST_F(Drain, EndsAtItsDeadlineAndTheClientIsTold) {
    start({.workers = 2, .worker_options = {"--drain-timeout-ms", "500"}});
    auto step = counting->begin();
    ASSERT_TRUE(step);
    ask_all_to_end();
    const Milliseconds took = time_to_end();
    std::printf("ended after %.0f ms\n", took.count());
    EXPECT_GE(took, 400ms);
    const Status finished = counting->finish(std::move(*step));
    ASSERT_FALSE(finished);
    std::printf("the client got: %s\n", finished.error().to_string().c_str());
}

TEST_F(Drain, ASecondSignalEndsAtOnce) {
    start({.workers = 2, .worker_options = {"--drain-timeout-ms", "3600000"}});
    auto step = counting->begin();
    ASSERT_TRUE(step);
    ask_all_to_end();
    ASSERT_TRUE(wait_until(kPatience, [&] { return !counting->begin(); }));
    ask_all_to_end();
    const Milliseconds took = time_to_end();
    std::printf("ended after %.0f ms\n", took.count());
}

}  // namespace
}  // namespace kvgrid::e2e
