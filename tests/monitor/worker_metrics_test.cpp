// What a worker exports says what its parts were told, and the page counts of a scrape are always those of one moment: a shard that is
// hard at work is scraped all the time, and in every scrape free + used + reserved is the capacity.
#include "worker/metrics.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "comm/monitor/families.h"
#include "comm/monitor/monitor_routes.h"
#include "core/version.h"
#include "tests/grid/driver.h"
#include "tests/monitor/scrape.h"
#include "worker/cpu_device.h"

namespace kvgrid::worker {
namespace {

using namespace std::chrono_literals;
using tests::parse_scrape;
using tests::Scrape;

constexpr ModelId kModel{1};

class WorkerMetricsTest : public testing::Test {
  protected:
    Scrape scrape(std::optional<NodeState> state = NodeState{.not_ready = "", .lead = {}}) {
        return parse_scrape(metrics_.text({.server = server_, .state = std::move(state), .abandoned_mpi_requests = 7}));
    }

    comm::IoThread io_;
    comm::Server server_{io_, {.on_request = {}, .on_disconnect = {}}};
    WorkerMetrics metrics_;
};

TEST_F(WorkerMetricsTest, EventsAreCountedWhereTheyBelong) {
    metrics_.waited_in_queue(20us);
    metrics_.waited_for_executor(20us);
    metrics_.step_ended(true, 3ms);
    metrics_.operation_applied();
    metrics_.tokens_committed(5);
    metrics_.layer_done(
        {.phase = Phase::decode, .tokens_attended = 100, .join_bytes = 10, .kernels = 40us, .join = 2us});
    metrics_.layer_done({.phase = Phase::write, .kernels = 40us});
    metrics_.answered({comm::MessageType::layer, std::nullopt, 90us});
    metrics_.answered({comm::MessageType::layer, Errc::wrong_state, 1us});

    const Scrape got = scrape();
    EXPECT_EQ(got.at("kvgrid_queue_wait_seconds_count"), 1);
    EXPECT_EQ(got.at("kvgrid_queue_wait_seconds_bucket{le=\"1e-05\"}"), 0);
    EXPECT_EQ(got.at("kvgrid_queue_wait_seconds_bucket{le=\"2.5e-05\"}"), 1);
    EXPECT_EQ(got.at("kvgrid_executor_wait_seconds_count"), 1);
    EXPECT_EQ(got.at("kvgrid_step_duration_seconds_count{end=\"commit\"}"), 1);
    EXPECT_EQ(got.at("kvgrid_step_duration_seconds_count{end=\"abort\"}"), 0);
    EXPECT_EQ(got.at("kvgrid_operations_total"), 1);
    EXPECT_EQ(got.at("kvgrid_tokens_committed_total"), 5);
    EXPECT_EQ(got.at("kvgrid_tokens_attended_total"), 100);
    EXPECT_EQ(got.at("kvgrid_join_bytes_total"), 10);
    EXPECT_DOUBLE_EQ(got.at("kvgrid_kernel_duration_seconds_sum{phase=\"decode\"}"), 40e-6);
    EXPECT_EQ(got.at("kvgrid_kernel_duration_seconds_count{phase=\"write\"}"), 1);
    EXPECT_EQ(got.at("kvgrid_join_duration_seconds_count{phase=\"decode\"}"), 1);
    EXPECT_EQ(got.at("kvgrid_requests_total{request=\"layer\"}"), 2);
    EXPECT_EQ(got.at("kvgrid_request_duration_seconds_count{request=\"layer\"}"), 2);
    EXPECT_EQ(got.at("kvgrid_refusals_total{reason=\"wrong_state\",request=\"layer\"}"), 1);
    EXPECT_EQ(got.at("kvgrid_mpi_abandoned_requests_total"), 7);
    EXPECT_GT(got.at("process_resident_memory_bytes"), 1 << 20);
    EXPECT_GT(got.at("process_open_fds"), 2);
    EXPECT_GT(got.at("process_start_time_seconds"), 1'600'000'000);
}

TEST_F(WorkerMetricsTest, TheWayOfTheJoinIsNamedOnEveryDevice) {
    metrics_.device().publish({.name = "CPU"});
    EXPECT_EQ(scrape().at("kvgrid_join_info{way=\"none\"}"), 1);

    metrics_.device().publish({.name = "CPU", .join = JoinWay::host});
    const Scrape got = scrape();
    EXPECT_EQ(got.at("kvgrid_join_info{way=\"host\"}"), 1);
    EXPECT_FALSE(got.series.contains("kvgrid_join_info{way=\"none\"}"));
    EXPECT_FALSE(got.names.contains("kvgrid_gpu_nccl_communicators"));
}

TEST_F(WorkerMetricsTest, CommunicatorsAreThoseOfTheGpu) {
    metrics_.device().publish({.name = "GPU",
                               .is_gpu = true,
                               .join = JoinWay::nccl,
                               .nccl_generation = 5,
                               .nccl_communicators = 1,
                               .nccl_aborts = 2});
    const Scrape got = scrape();
    EXPECT_EQ(got.at("kvgrid_join_info{way=\"NCCL\"}"), 1);
    EXPECT_EQ(got.at("kvgrid_gpu_nccl_generation"), 5);
    EXPECT_EQ(got.at("kvgrid_gpu_nccl_communicators"), 1);
    EXPECT_EQ(got.at("kvgrid_gpu_nccl_aborts_total"), 2);
}

TEST_F(WorkerMetricsTest, StateIsThatOfTheMoment) {
    NodeState state{
        .generation = Generation{3}, .rank = 0, .not_ready = "", .lead = LeadState{.queue_depth = 4, .open_steps = 2}};
    Scrape got = scrape(state);
    EXPECT_EQ(got.at("kvgrid_ready"), 1);
    EXPECT_EQ(got.at("kvgrid_generation"), 3);
    EXPECT_EQ(got.at("kvgrid_lead_queue_depth"), 4);
    EXPECT_EQ(got.at("kvgrid_open_steps"), 2);

    state = {.generation = Generation{3}, .rank = 1, .not_ready = "the ranks are forming", .lead = {}};
    got = scrape(state);
    EXPECT_EQ(got.at("kvgrid_ready"), 0);
    EXPECT_FALSE(got.names.contains("kvgrid_lead_queue_depth"));

    got = scrape(std::nullopt);  // the I/O thread is stuck
    EXPECT_EQ(got.at("kvgrid_ready"), 0);
    EXPECT_EQ(got.at("kvgrid_io_thread_answers"), 0);
}

// A sequence grows and is closed again and again, in a thread of its own as the executor's is.
class BusyShard {
  public:
    explicit BusyShard(WorkerMetrics& metrics) : metrics_(metrics) {
        spec_.name = "a \"quoted\"\nname";
        shard_.add_model(kModel, spec_, {1, 1}, 0).value();
        publish();
    }
    void run(const std::atomic<bool>& stop) {
        for (std::uint64_t id = 1; !stop; ++id) {
            shard_.open(SequenceId{id}, kModel, {}).value();
            if (id > 1) shard_.fork(SequenceId{id}, SequenceId{1'000'000 + id}).value();
            publish();
            const BeginStep begin{
                .step = StepId{id}, .model = kModel, .kind = StepKind::attend, .parts = {{SequenceId{id}, 100}}};
            shard_.begin(begin).value();
            publish();
            shard_.abort(begin.step).value();
            shard_.close(SequenceId{id}).value();
            if (id > 1) shard_.close(SequenceId{1'000'000 + id}).value();
            publish();
        }
    }

  private:
    void publish() { metrics_.occupancy().publish(shard_); }

    WorkerMetrics& metrics_;
    CpuDevice device_{1};
    ModelSpec spec_ = tests::make_spec(2, 4, 2, 32, Dtype::f32);
    Shard shard_{0, 16 << 20, device_};
};

TEST_F(WorkerMetricsTest, PagesAreConservedInEveryScrapeWhileTheShardWorks) {
    BusyShard shard(metrics_);
    std::atomic<bool> stop = false;
    std::thread executor([&] { shard.run(stop); });
    const std::string model = "a \\\"quoted\\\"\\nname";
    int with_reserved = 0;
    for (int i = 0; i < 300; ++i) {
        const Scrape got = scrape();
        const double reserved = got.pages(model, "reserved");
        with_reserved += reserved > 0;
        EXPECT_EQ(got.pages(model, "free") + got.pages(model, "used") + reserved,
                  got.of_model("kvgrid_page_capacity", model));
    }
    stop = true;
    executor.join();
    RecordProperty("scrapes_with_reserved_pages", with_reserved);
    metrics_.occupancy().withdraw();
    EXPECT_FALSE(scrape().names.contains("kvgrid_pages"));
}

TEST_F(WorkerMetricsTest, ModelsBeyondTheBoundStandTogether) {
    CpuDevice device(1);
    Shard shard(0, 64 << 20, device);
    const int count = static_cast<int>(OccupancyMetrics::kModelsMax) + 5;
    double capacity = 0;
    for (int i = 1; i <= count; ++i) {
        ModelSpec spec = tests::make_spec(1, 1, 1, 32, Dtype::f32);
        spec.name = "m" + std::to_string(i);
        capacity += static_cast<double>(
            shard.add_model(ModelId{static_cast<std::uint64_t>(i)}, spec, {1, 1}, 2 * spec.page_bytes()).value() /
            spec.page_bytes());
    }
    metrics_.occupancy().publish(shard);
    const Scrape got = scrape();
    double sum = 0, series = 0;
    for (const auto& [name, value] : got.series) {
        if (!name.starts_with("kvgrid_page_capacity{")) continue;
        sum += value;
        ++series;
    }
    EXPECT_EQ(series, OccupancyMetrics::kModelsMax + 1);
    EXPECT_EQ(sum, capacity);
    EXPECT_EQ(got.of_model("kvgrid_page_capacity", "other"), 10);
}

TEST(MonitorRoutes, SayWhatIsWrongAndWhatRuns) {
    std::string problem = "the ranks are forming";
    const comm::HttpRoutes routes = comm::monitor_routes({.program = "kvgrid-worker",
                                                          .not_live = [] { return std::string(); },
                                                          .not_ready = [&] { return problem; },
                                                          .metrics = [] { return std::string("m 1\n"); }});
    EXPECT_EQ(routes.at("/live")().status, 200);
    EXPECT_EQ(routes.at("/ready")().status, 503);
    EXPECT_EQ(routes.at("/ready")().body, "not ready: the ranks are forming\n");
    problem = "";
    EXPECT_EQ(routes.at("/ready")().status, 200);
    EXPECT_EQ(routes.at("/metrics")().content_type, comm::kMetricsContentType);
    const std::string version = routes.at("/version")().body;
    EXPECT_NE(version.find(std::string("\"version\": \"") + kVersion), version.npos) << version;
    EXPECT_NE(version.find("\"commit\""), version.npos);
}

}  // namespace
}  // namespace kvgrid::worker
