// A cluster ends with whoever started it: asked to, or killed. Processes are looked for in /proc by the directory that only this
// cluster's command lines have.
#include "client/cli/local/local_cluster.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <future>
#include <thread>

#include "client/cli/local/process_scan.h"
#include "client/cli/local/text_file.h"
#include "client/cli/replay/replay.h"
#include "tests/e2e/counting_sequence.h"
#include "tests/e2e/e2e_cluster.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;

constexpr auto kStartTimeout = 60s;
constexpr auto kEndTimeout = 10s;  // of processes whose parent was killed; some 100 ms as a rule

// Polls: what is waited for happens in other processes.
template <class Condition>
bool becomes_true(std::chrono::milliseconds timeout, Condition condition) {
    for (const Deadline deadline = deadline_in(timeout); std::chrono::steady_clock::now() < deadline;) {
        if (condition()) return true;
        std::this_thread::sleep_for(10ms);
    }
    return false;
}

std::string rest_of_line(const std::filesystem::path& file, const std::string& beginning) {
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) {
        if (line.starts_with(beginning)) return line.substr(beginning.size());
    }
    return "";
}

TEST(LocalCluster, StopLeavesNoProcessAndNoFile) {
    auto cluster = cli::LocalCluster::start({.workers = 2, .state_dir = {}, .interrupted = {}}).value();
    const std::string mark = cluster.mark();
    EXPECT_EQ(cli::processes_naming(mark).size(), 4u);  // coordinator, mpirun, 2 workers

    const Status stopped = cluster.stop();

    EXPECT_TRUE(stopped) << stopped.error().to_string();
    EXPECT_TRUE(cli::processes_naming(mark).empty());
    EXPECT_FALSE(std::filesystem::exists(mark));
    EXPECT_TRUE(cluster.stop());
}

// Four ranks as threads, without mpirun: they form a grid, answer rightly, and end when asked to.
TEST(LocalCluster, WorkersMayBeThreadsOfOneProcess) {
    auto cluster =
        cli::LocalCluster::start({.workers = 4, .one_process = true, .state_dir = {}, .interrupted = {}}).value();
    const std::string mark = cluster.mark();
    EXPECT_EQ(cli::processes_naming(mark).size(), 2u);  // coordinator, kvgrid-worker
    {
        auto client = Client::connect(cluster.endpoint()).value();
        const auto status = client.status().value();
        EXPECT_EQ(status.workers.size(), 4u);
        const auto model =
            client
                .register_model(
                    cli::replay_spec(real_trace(), Dtype::f32),
                    {.grid = {2, 2}, .pool_bytes_per_worker = cli::replay_pool_bytes(real_trace(), Dtype::f32, {2, 2})})
                .value();
        EXPECT_TRUE(cli::replay(client, model, real_trace()).value().passed());
        for (const WorkerOccupancy& worker : client.occupancy().value().workers)
            EXPECT_GT(worker.models.at(0).free_pages, 0u);
    }
    const Status stopped = cluster.stop();

    EXPECT_TRUE(stopped) << stopped.error().to_string();
    EXPECT_TRUE(cli::processes_naming(mark).empty());
}

// Longer than processes get that have nothing to wait for.
TEST(LocalCluster, StopWaitsForAStepThatIsOpen) {
    auto cluster = cli::LocalCluster::start({.workers = 2, .state_dir = {}, .interrupted = {}}).value();
    auto client = Client::connect(cluster.endpoint()).value();
    CountingSequence counting(client, client.open(client.register_model(counting_spec(), {}).value()).value());
    auto step = counting.begin();
    ASSERT_TRUE(step);

    auto stopped = std::async(std::launch::async, [&] { return cluster.stop(); });
    ASSERT_EQ(stopped.wait_for(4s), std::future_status::timeout);
    const Status finished = counting.finish(*std::move(step));

    EXPECT_TRUE(finished) << finished.error().to_string();
    const Status done = stopped.get();
    EXPECT_TRUE(done) << done.error().to_string();
    counting.sequence().release();
}

TEST(LocalCluster, AKilledParentLeavesNoProcess) {
    const auto directory = cli::TemporaryDirectory::make().value();
    const auto log = directory.path() / "holder.log";
    auto holder =
        cli::ChildProcess::start({.arguments = {program("cluster_holder")}, .environment = {}, .log = log}).value();
    std::string mark;
    ASSERT_TRUE(becomes_true(kStartTimeout, [&] { return !(mark = rest_of_line(log, "held ")).empty(); }))
        << cli::last_lines(log, 20);
    ASSERT_EQ(cli::processes_naming(mark).size(), 4u);

    kill(holder.process_id(), SIGKILL);

    EXPECT_TRUE(becomes_true(kEndTimeout, [&] { return cli::processes_naming(mark).empty(); }));
    cli::kill_processes_naming(mark, deadline_in(2s));
    cli::remove_abandoned_directories();  // nobody was left to do it
    EXPECT_FALSE(std::filesystem::exists(mark));
}

TEST(TemporaryDirectory, OfALivingProcessIsNotAbandoned) {
    const auto directory = cli::TemporaryDirectory::make().value();

    cli::remove_abandoned_directories();

    EXPECT_TRUE(std::filesystem::exists(directory.path()));
}

TEST(LocalCluster, ADeadCoordinatorIsNoticedWithItsLog) {
    E2eCluster cluster(1);
    ASSERT_TRUE(cluster.cluster().check());
    pid_t coordinator = 0;
    for (const pid_t each : cli::processes_naming(cluster.cluster().mark())) {
        std::ifstream name(fmt::format("/proc/{}/comm", each));
        std::string text;
        if (std::getline(name, text) && text == "kvgrid-coordina") coordinator = each;  // 15 bytes of it
    }
    ASSERT_GT(coordinator, 0);

    kill(coordinator, SIGKILL);

    ASSERT_TRUE(becomes_true(kEndTimeout, [&] { return !cluster.cluster().check(); }));
    const Error error = cluster.cluster().check().error();
    EXPECT_NE(error.message.find("kvgrid-coordinator was ended by signal 9"), error.message.npos) << error.message;
    EXPECT_NE(error.message.find("listening on"), error.message.npos) << error.message;
}

TEST(LocalCluster, SaysWhyItDoesNotStart) {
    const auto directory = cli::TemporaryDirectory::make().value();
    std::ofstream(directory.path() / "file") << "not a directory";

    const auto cluster =
        cli::LocalCluster::start({.workers = 1, .state_dir = directory.path() / "file", .interrupted = {}});

    ASSERT_FALSE(cluster);
    EXPECT_EQ(cluster.error(), Errc::invalid_argument);
}

}  // namespace
}  // namespace kvgrid::e2e
