// A worker that dies or stops is noticed in the time that docs/operations.md states, everybody who waits for it is told which worker it
// was, the others stay up with every page accounted for, and the next generation begins as soon as there are workers for it. Real
// processes, killed while a client steps without pause. The times are printed; what is asserted leaves room for a machine that is busy.

#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "client/cli/local/worker_gpus.h"
#include "tests/e2e/counting_sequence.h"
#include "tests/e2e/faulty_cluster.h"
#include "tests/monitor/scrape.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;

constexpr auto kDeathPatience = 5s;     // stated: 100 ms
constexpr auto kSilencePatience = 10s;  // stated: 2.5 s, and 1 s more where the lead itself is silent
constexpr auto kHealPatience = 20s;

class Loss : public ::testing::Test {
  protected:
    void start(const FaultyClusterOptions& options) {
        cluster.emplace(options);
        client.emplace(cluster->connect());
        model = client->register_model(counting_spec(), {.pool_bytes_per_worker = 16 << 20}).value();
        counting.emplace(*client, client->open(model).value());
        for (int i = 0; i < 10; ++i) ASSERT_TRUE(counting->step());
    }
    ~Loss() override {
        if (counting) counting->sequence().release();  // it is lost
    }

    // Steps until one fails; a signal is sent while they go on. The failure, and how long after the signal it came.
    Error step_until_lost(pid_t process, int signal, std::chrono::milliseconds patience) {
        TimePoint sent;
        std::jthread sender([&] {
            std::this_thread::sleep_for(50ms);  // into the middle of some step
            sent = std::chrono::steady_clock::now();
            kill(process, signal);
        });
        Status stepped;
        while (stepped) stepped = counting->step();
        const TimePoint failed = std::chrono::steady_clock::now();
        sender.join();
        EXPECT_LT(failed - sent, patience);
        std::printf("noticed after %.1f ms: %s\n", Milliseconds(failed - sent).count(),
                    stepped.error().to_string().c_str());
        return stepped.error();
    }

    void expect_named(const Error& error, const ClusterWorker& worker) {
        const std::string name = "worker " + std::to_string(worker.worker.value) + " (rank " +
                                 std::to_string(worker.rank) + ", pid " + std::to_string(worker.process_id) +
                                 " on host " + worker.host + ")";
        EXPECT_NE(error.message.find(name), error.message.npos) << error.to_string() << " does not name " << name;
    }

    // The worker lives, and its pages, as its heartbeats tell them, are all accounted for and hold what they held.
    void expect_accounted(WorkerId survivor) {
        for (const ClusterWorker& worker : cluster->status().workers) {
            if (worker.worker != survivor) continue;
            EXPECT_TRUE(worker.alive);
            ASSERT_EQ(worker.models.size(), 1u);
            const ModelOccupancy& pages = worker.models[0];
            EXPECT_EQ(pages.free_pages + pages.used_pages + pages.reserved_pages, pages.capacity_pages);
            EXPECT_GT(pages.used_pages, 0u);
            EXPECT_EQ(pages.sequences, 1u);
            return;
        }
        ADD_FAILURE() << "worker " << survivor.value << " is gone";
    }

    // A sequence of the next generation.
    void count_again() {
        counting->sequence().release();  // it is lost
        counting.reset();
        ASSERT_TRUE(wait_until(kHealPatience, [&] {
            auto opened = client->open(model);
            if (!opened) return false;
            CountingSequence fresh(*client, std::move(*opened));
            if (!fresh.step()) return fresh.sequence().release(), false;
            counting.emplace(std::move(fresh));
            return true;
        })) << cluster->status().not_ready_because;
    }

    // By its own count.
    static double gpu_memory_taken_by(const ClusterWorker& worker) {
        const tests::Scrape scrape = tests::scrape(worker.http_endpoint);
        double taken = 0;
        for (const char* kind : {"pages", "page_lists", "scratch"}) {
            taken += scrape.at(std::string("kvgrid_gpu_memory_bytes{kind=\"") + kind + "\"}");
        }
        return taken;
    }

    // From now on, until a sequence can be opened and stepped in a later generation.
    void expect_service_again() {
        const Generation lost = generation_at_start;
        std::optional<CountingSequence> fresh;
        const auto healed = wait_until(kHealPatience, [&] {
            auto opened = client->open(model);
            if (!opened) return false;
            fresh.emplace(*client, std::move(*opened));
            return fresh->step().ok();  // the first call to the lead of before tells the client that there is another
        });
        ASSERT_TRUE(healed) << cluster->status().not_ready_because;
        std::printf("a sequence can be opened and stepped again %.0f ms after the loss was noticed\n", healed->count());
        for (int i = 0; i < 5; ++i) {
            const Status stepped = fresh->step();
            EXPECT_TRUE(stepped) << stepped.error().to_string();
        }
        const ClusterStatus status = cluster->status();
        EXPECT_GT(status.generation, lost);
        EXPECT_EQ(client->sequences()->size(), 1u) << "those of the lost generation have ended";
        for (const WorkerOccupancy& worker : client->occupancy()->workers) {
            EXPECT_EQ(worker.models[0].sequences, 1u) << "survivors have given their pages back";
        }
    }

    Generation generation_at_start{1};
    std::optional<FaultyCluster> cluster;
    std::optional<Client> client;
    RegisteredModel model;
    std::optional<CountingSequence> counting;
};

TEST_F(Loss, OfAPeerThatIsKilled) {
    start({.workers = 2});
    const ClusterWorker lead = cluster->worker(0), peer = cluster->worker(1);

    const Error error = step_until_lost(peer.process_id, SIGKILL, kDeathPatience);

    EXPECT_EQ(error, Errc::peer_lost);
    expect_named(error, peer);
    expect_named(counting->step().error(), peer);
    ASSERT_TRUE(wait_until(kSilencePatience, [&] {
        return cluster->status().not_ready_because.find("died: its connection broke") != std::string::npos;
    })) << cluster->status().not_ready_because;
    const Error refused = client->open(model).error();
    EXPECT_EQ(refused, Errc::unavailable);
    expect_named(refused, peer);
    EXPECT_NE(refused.message.find("1 of the 2 workers that the next one needs are here"), std::string::npos)
        << refused.message;
    expect_accounted(lead.worker);
}

TEST_F(Loss, OfALeadThatIsKilled) {
    start({.workers = 2});
    const ClusterWorker lead = cluster->worker(0), peer = cluster->worker(1);

    const Error error = step_until_lost(lead.process_id, SIGKILL, kDeathPatience);

    EXPECT_EQ(error, Errc::unavailable);
    expect_named(error, lead);
    EXPECT_NE(error.message.find("the connection broke"), std::string::npos) << error.message;
    ASSERT_TRUE(wait_until(kSilencePatience, [&] { return !cluster->status().ready; }));
    expect_accounted(peer.worker);
}

TEST_F(Loss, OfAPeerThatStopsAndGoesOnLater) {
    start({.workers = 2});
    const ClusterWorker peer = cluster->worker(1);

    const Error error = step_until_lost(peer.process_id, SIGSTOP, kSilencePatience);
    EXPECT_EQ(error, Errc::peer_lost);
    expect_named(error, peer);
    expect_accounted(cluster->worker(0).worker);

    kill(peer.process_id, SIGCONT);
    expect_service_again();
    const ClusterWorker again = cluster->worker(1);
    EXPECT_EQ(again.worker, peer.worker) << "it was never another process";
}

TEST_F(Loss, OfALeadThatStopsAndGoesOnLater) {
    start({.workers = 2});
    const ClusterWorker lead = cluster->worker(0);

    const Error error = step_until_lost(lead.process_id, SIGSTOP, kSilencePatience);
    EXPECT_EQ(error, Errc::peer_lost);
    expect_named(error, lead);

    kill(lead.process_id, SIGCONT);
    expect_service_again();
}

TEST_F(Loss, AStandbyTakesThePlaceOfAPeer) {
    start({.workers = 2, .standbys = 1});
    ASSERT_TRUE(wait_until(kHealPatience, [&] { return cluster->status().workers.size() == 3; }));
    const ClusterWorker peer = cluster->worker(1);
    step_until_lost(peer.process_id, SIGKILL, kDeathPatience);
    expect_service_again();
    EXPECT_NE(cluster->worker(1).worker, peer.worker);
}

TEST_F(Loss, AStandbyTakesThePlaceOfTheLeadAndAStoppedWorkerIsNotWaitedFor) {
    start({.workers = 2, .standbys = 1});
    ASSERT_TRUE(wait_until(kHealPatience, [&] { return cluster->status().workers.size() == 3; }));
    const ClusterWorker lead = cluster->worker(0);
    expect_named(step_until_lost(lead.process_id, SIGSTOP, kSilencePatience), lead);
    expect_service_again();

    // It finds a generation that it does not belong to, and waits as a standby.
    kill(lead.process_id, SIGCONT);
    EXPECT_TRUE(wait_until(kHealPatience, [&] { return cluster->status().workers.size() == 3; }));
    EXPECT_TRUE(cluster->status().ready);
    auto another = client->open(model);
    ASSERT_TRUE(another) << another.error().to_string();
    CountingSequence counts(*client, std::move(*another));
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(counts.step());
}

// Each kill leaves a join without one of its ranks, in the middle of whatever its kernels do. From the second generation on the lead is the same.
TEST_F(Loss, OfPeersInTurnCostsTheLeadNoMemory) {
    const auto gpus = cli::worker_gpus();
    const bool on_gpus = gpus && !gpus->empty();
    const int kills = on_gpus ? 20 : 3;
    start({.workers = 2, .standbys = kills, .worker_options = {"--join", "pushed", "--http-listen", "127.0.0.1:0"}});
    ASSERT_TRUE(wait_until(kHealPatience, [&] { return cluster->status().workers.size() == 2u + kills; }));
    pid_t lead = 0;
    double taken_at_first = 0;
    for (int killed = 0; killed < kills; ++killed) {
        SCOPED_TRACE(killed);
        EXPECT_EQ(step_until_lost(cluster->worker(1).process_id, SIGKILL, kDeathPatience), Errc::peer_lost);
        count_again();
        if (HasFatalFailure()) return;
        const ClusterWorker worker = cluster->worker(0);
        const double taken = on_gpus ? gpu_memory_taken_by(worker) : 0;
        if (killed == 0) {
            lead = worker.process_id;
            taken_at_first = taken;
        }
        EXPECT_EQ(worker.process_id, lead);
        EXPECT_EQ(taken, taken_at_first);
    }
}

}  // namespace
}  // namespace kvgrid::e2e
