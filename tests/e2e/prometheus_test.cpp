// Prometheus' own programs are content: promtool finds nothing to say about what coordinator and workers export, and a Prometheus that was
// started with the configuration that kvgrid writes for the cluster scrapes all of it and answers queries with the cluster's own numbers.
// Both programs are of the Debian package prometheus; a machine without them fails here.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/cli/local/child_process.h"
#include "client/cli/local/text_file.h"
#include "client/cli/monitor/prometheus_config.h"
#include "tests/e2e/busy_cluster.h"
#include "tests/monitor/http_socket.h"
#include "tests/monitor/scrape.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 60s;

// What `command < input` prints, and its exit status.
std::pair<std::string, int> run(const std::string& command, const std::string& input) {
    const auto directory = cli::TemporaryDirectory::make().value();
    const std::filesystem::path in = directory.path() / "in", out = directory.path() / "out";
    std::ofstream(in) << input;
    const int status = std::system(fmt::format("{} < {} > {} 2>&1", command, in.string(), out.string()).c_str());
    std::ifstream printed(out);
    return {std::string(std::istreambuf_iterator<char>(printed), {}), WEXITSTATUS(status)};
}

// ./dev setup installs both programs, and is silent only where CMAKE_PREFIX_PATH says that the host looks after itself: elsewhere a test
// without them fails.
class PrometheusPrograms : public testing::Test {
  protected:
    void SetUp() override {
        const bool is_there = run("promtool --version", "").second == 0;
        if (!is_there && std::getenv("CMAKE_PREFIX_PATH")) {
            GTEST_SKIP() << "there is no promtool, and CMAKE_PREFIX_PATH is set: nothing is installed here";
        }
        ASSERT_TRUE(is_there) << "there is no promtool: ./dev setup";
    }
};
using Promtool = PrometheusPrograms;
using RealPrometheus = PrometheusPrograms;

TEST_F(Promtool, FindsNothingToSayAboutAnyProcess) {
    BusyCluster cluster(2);
    for (const std::string& endpoint : cluster.endpoints()) {
        const auto [said, status] = run("promtool check metrics", tests::scrape(endpoint).text);
        EXPECT_EQ(status, 0) << endpoint << ": " << said;
        EXPECT_EQ(said, "") << endpoint;
    }
}

TEST_F(Promtool, WouldSaySo) {
    EXPECT_NE(run("promtool check metrics", "# TYPE bad:name counter\nbad:name 1\n").second, 0);
}

TEST(Monitoring, EveryProcessIsLiveAndReadyAndSaysItsVersion) {
    BusyCluster cluster(2);
    for (const std::string& endpoint : cluster.endpoints()) {
        EXPECT_EQ(tests::http_get(endpoint, "/live").status, 200);
        EXPECT_EQ(tests::http_get(endpoint, "/ready").status, 200);
        const auto version = nlohmann::json::parse(tests::http_get(endpoint, "/version").body);
        EXPECT_EQ(version.at("version"), cluster.client().status().value().version);
    }
}

// A free port: of a listener that was closed just now.
int free_port() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    close(fd);
    return ntohs(address.sin_port);
}

class Prometheus {
  public:
    explicit Prometheus(const std::string& config) {
        std::ofstream(directory_.path() / "prometheus.yml") << config;
        process_.emplace(
            cli::ChildProcess::start({.arguments = {"/usr/bin/prometheus",
                                                    "--config.file=" + (directory_.path() / "prometheus.yml").string(),
                                                    "--storage.tsdb.path=" + (directory_.path() / "data").string(),
                                                    "--web.listen-address=" + endpoint_},
                                      .environment = {},
                                      .log = log()})
                .value());
    }

    // Asks again until the answer is `expected`, since a scrape comes only now and then; the last answer.
    double query_until(const std::string& query, double expected) {
        double value = std::nan("");
        for (const Deadline deadline = deadline_in(kPatience); std::chrono::steady_clock::now() < deadline;) {
            value = ask(query);
            if (value == expected) break;
            if (!process_->running()) {
                ADD_FAILURE() << "prometheus has ended: " << cli::last_lines(log(), 20);
                break;
            }
            std::this_thread::sleep_for(50ms);
        }
        return value;
    }

  private:
    std::filesystem::path log() const { return directory_.path() / "prometheus.log"; }

    // The value of a query that gives one number; NaN if there is none yet.
    double ask(const std::string& query) {
        std::string escaped;
        for (const unsigned char c : query) escaped += std::isalnum(c) ? std::string(1, c) : fmt::format("%{:02X}", c);
        try {
            const auto answer =
                nlohmann::json::parse(tests::http_get(endpoint_, "/api/v1/query?query=" + escaped).body);
            const auto& result = answer.at("data").at("result");
            return result.empty() ? std::nan("") : std::stod(result.at(0).at("value").at(1).get<std::string>());
        } catch (const std::exception&) {
            return std::nan("");  // it does not listen yet
        }
    }

    cli::TemporaryDirectory directory_ = cli::TemporaryDirectory::make().value();
    std::string endpoint_ = fmt::format("127.0.0.1:{}", free_port());
    std::optional<cli::ChildProcess> process_;
};

TEST_F(RealPrometheus, ScrapesTheClusterAndAnswersWithItsNumbers) {
    BusyCluster cluster(2);
    const std::string config = cli::prometheus_config(cluster.client().status().value(), /*scrape_interval_s=*/1);
    ASSERT_EQ(run("promtool check config --syntax-only /dev/stdin", config).second, 0) << config;
    double used = 0;
    for (const WorkerOccupancy& worker : cluster.client().occupancy().value().workers)
        used += static_cast<double>(worker.models.at(0).used_pages);
    Prometheus prometheus(config);

    EXPECT_EQ(prometheus.query_until("sum(up)", 3), 3);
    EXPECT_EQ(prometheus.query_until(R"(sum(kvgrid_pages{state="used"}))", used), used);
    EXPECT_EQ(prometheus.query_until("sum(kvgrid_ready)", 3), 3);
    EXPECT_EQ(prometheus.query_until(R"(kvgrid_workers{state="member"})", 2), 2);
    EXPECT_EQ(prometheus.query_until(R"(max(kvgrid_sequence_tokens{job="kvgrid-worker", rank="1"}))", 101), 101);
    EXPECT_EQ(prometheus.query_until("sum(kvgrid_pages) - sum(kvgrid_page_capacity)", 0), 0);
    EXPECT_EQ(prometheus.query_until(R"(sum(kvgrid_kernel_duration_seconds_count{phase="decode"}))", 4), 4);
}

}  // namespace
}  // namespace kvgrid::e2e
