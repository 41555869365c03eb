// kvgrid-coordinator: the program. Exit codes: 0 ended on request, 1 failed, 2 wrong usage.
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "coordinator/server.h"
#include "core/log.h"
#include "core/version.h"

namespace {

using namespace kvgrid;

constexpr int kFailed = 1;
constexpr int kUsage = 2;

struct Settings {
    std::vector<std::string> listen{"127.0.0.1:7070"};
    bool allow_remote = false;
    std::string state_dir;
    int workers = 1;
    int heartbeat_ms = 200;
    int dead_after_ms = 2'000;
    std::string log_level = "info";
    bool exit_with_parent = false;
};

void describe(CLI::App& app, Settings& settings) {
    app.add_option("--listen", settings.listen,
                   "where to listen: host:port (port 0: any) or unix:/path; may be repeated")
        ->capture_default_str();
    app.add_flag("--allow-remote", settings.allow_remote, "listen also on addresses that other hosts can reach");
    app.add_option("--state-dir", settings.state_dir, "directory of the catalogue")->required();
    app.add_option("--workers", settings.workers, "workers that make up the grid")
        ->required()
        ->check(CLI::Range(1, 4096));
    app.add_option("--heartbeat-ms", settings.heartbeat_ms, "how often workers report")
        ->check(CLI::Range(10, 60'000))
        ->capture_default_str();
    app.add_option("--dead-after-ms", settings.dead_after_ms, "silence after which a worker is dead")
        ->check(CLI::Range(40, 600'000))
        ->capture_default_str();
    app.add_option("--log-level", settings.log_level, "lowest level that is logged")
        ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
        ->capture_default_str();
    app.add_flag("--exit-with-parent", settings.exit_with_parent, "end when the process that started this one ends");
}

// Blocked in all threads, so that `main` can wait for them instead of handling them anywhere.
sigset_t block_ending_signals() {
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ending, nullptr);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write
    return ending;
}

void end_with_parent() {
    const pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) raise(SIGTERM);  // it ended before we could ask to be told
}

Status listen_all(coordinator::CoordinatorServer& server, const Settings& settings) {
    for (const std::string& text : settings.listen) {
        auto endpoint = comm::parse_endpoint(text);
        if (!endpoint) return endpoint.error();
        auto bound = server.listen(*endpoint, settings.allow_remote);
        if (!bound) return bound.error();
        fmt::print("listening on {}\n", bound->to_string());
        std::fflush(stdout);
    }
    return {};
}

Status run(const Settings& settings, const sigset_t& ending) {
    using std::chrono::milliseconds;
    auto catalogue = coordinator::Catalogue::open(settings.state_dir);
    if (!catalogue) return catalogue.error();

    SteadyClock clock;
    comm::IoThread io;
    const coordinator::Coordinator::Options options{
        .membership = {.expected_workers = settings.workers, .dead_after = milliseconds(settings.dead_after_ms)},
        .heartbeat = milliseconds(settings.heartbeat_ms)};
    auto started = coordinator::Coordinator::start(io, clock, *std::move(catalogue), options);
    if (!started) return started.error();
    coordinator::CoordinatorServer server(io, *std::move(started));
    if (auto listening = listen_all(server, settings); !listening) return listening;

    int signal_number = 0;
    sigwait(&ending, &signal_number);
    log_info(fmt::format("ending on {}", signal_number == SIGTERM ? "SIGTERM" : "SIGINT"));
    return {};
}

}  // namespace

int main(int argc, char** argv) try {
    const sigset_t ending = block_ending_signals();
    Settings settings;
    CLI::App app{"The coordinator of a kvgrid cluster: it decides which worker holds what."};
    app.set_version_flag("--version", kVersion);
    describe(app, settings);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& wrong) {
        return app.exit(wrong) == 0 ? 0 : kUsage;
    }
    if (settings.dead_after_ms < 4 * settings.heartbeat_ms) {
        fmt::print(stderr, "--dead-after-ms {} must be at least 4 times --heartbeat-ms {}\n", settings.dead_after_ms,
                   settings.heartbeat_ms);
        return kUsage;
    }
    init_log("coordinator", parse_log_level(settings.log_level, LogLevel::info));
    if (settings.exit_with_parent) end_with_parent();
    if (auto ended = run(settings, ending); !ended) {
        log_error(ended.error().to_string());
        return kFailed;
    }
    return 0;
} catch (const std::exception& defect) {
    log_error(std::string("the coordinator ends: ") + defect.what());
    return kFailed;
}
