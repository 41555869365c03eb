// The demonstration as a user starts it, made short; and Ctrl-C in the middle of it.
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <thread>

#include "client/cli/local/child_process.h"
#include "client/cli/local/process_scan.h"
#include "client/cli/local/text_file.h"
#include "tests/e2e/e2e_cluster.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;

constexpr auto kTimeout = 90s;

std::string text_of(const std::filesystem::path& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

cli::ChildProcess start_demo(const std::filesystem::path& log, const std::string& tokens, const std::string& layers) {
    return cli::ChildProcess::start(
               {.arguments = {program("kvgrid"), "demo", "--tokens", tokens, "--layers", layers, "--trace",
                              std::string(KVGRID_TEST_DATA) + "/smollm2_135m_instruct.safetensors"},
                .environment = {},
                .log = log})
        .value();
}

TEST(Demo, ShowsAllFourActsAndStops) {
    const auto directory = cli::TemporaryDirectory::make().value();
    const auto log = directory.path() / "demo.log";
    auto demo = start_demo(log, "4500", "2");

    ASSERT_TRUE(demo.wait_until(deadline_in(kTimeout))) << text_of(log);

    EXPECT_EQ(demo.how_it_ended(), "ended with exit status 0") << text_of(log);
    for (const char* promised :
         {"every row is within its tolerance", "tokens/s", "every page came back", "4. What was done"}) {
        EXPECT_NE(text_of(log).find(promised), std::string::npos) << promised << " is not in\n" << text_of(log);
    }
}

TEST(Demo, CtrlCStopsEverything) {
    const auto directory = cli::TemporaryDirectory::make().value();
    const auto log = directory.path() / "demo.log";
    auto demo = start_demo(log, "1048576", "30");
    const Deadline deadline = deadline_in(kTimeout);
    while (text_of(log).find("2. A context of") == std::string::npos) {
        ASSERT_TRUE(demo.running() && std::chrono::steady_clock::now() < deadline) << text_of(log);
        std::this_thread::sleep_for(10ms);
    }
    const std::string text = text_of(log);
    const auto mark_at = text.find("/tmp/kvgrid-");
    ASSERT_NE(mark_at, text.npos) << text;
    const std::string mark = text.substr(mark_at, text.find('/', mark_at + 6) - mark_at);
    // Coordinator, mpirun, workers; or two workers in one process, where there is one GPU.
    ASSERT_GE(cli::processes_naming(mark).size(), text.find("4 workers with") != text.npos ? 6u : 2u);

    demo.signal_group(SIGINT);

    ASSERT_TRUE(demo.wait_until(deadline)) << text_of(log);
    EXPECT_EQ(demo.how_it_ended(), "ended with exit status 130") << text_of(log);
    EXPECT_TRUE(cli::processes_naming(mark).empty());
    EXPECT_FALSE(std::filesystem::exists(mark));
}

}  // namespace
}  // namespace kvgrid::e2e
