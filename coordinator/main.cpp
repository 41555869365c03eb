// kvgrid-coordinator: the program. Exit codes: 0 ended on request, 1 failed, 2 wrong usage.
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "coordinator/server.h"
#include "core/config/setting_options.h"
#include "core/log.h"
#include "core/version.h"

namespace {

using namespace kvgrid;

constexpr int kFailed = 1;
constexpr int kUsage = 2;

struct Settings {
    std::vector<std::string> listen;
    std::string http_listen;
    bool allow_remote = false;
    std::string state_dir;
    int workers = 0;
    int heartbeat_ms = 0;
    int dead_after_ms = 0;
    int prefixes_max = 0;
    std::string log_level;
    bool exit_with_parent = false;
    std::string config_file;
};

// Flags, else the environment, else the configuration file.
void describe(CLI::App& app, SettingOptions& options, Settings& settings) {
    options.add(app, "coordinator.listen", settings.listen);
    options.add(app, "coordinator.http_listen", settings.http_listen);
    options.add(app, "coordinator.allow_remote", settings.allow_remote);
    options.add(app, "coordinator.state_dir", settings.state_dir);
    options.add(app, "coordinator.workers", settings.workers);
    options.add(app, "coordinator.heartbeat_ms", settings.heartbeat_ms);
    options.add(app, "coordinator.dead_after_ms", settings.dead_after_ms);
    options.add(app, "coordinator.prefixes_max", settings.prefixes_max);
    options.add(app, "coordinator.log_level", settings.log_level);
    add_config_option(app, settings.config_file);
    app.add_flag("--exit-with-parent", settings.exit_with_parent, "end when the process that started this one ends");
}

// What the settings are one by one, they need not be together.
Status check(const Settings& settings) {
    if (settings.state_dir.empty()) return {Errc::invalid_argument, "--state-dir is needed: the catalogue's directory"};
    if (settings.workers == 0) return {Errc::invalid_argument, "--workers is needed: how many make up the grid"};
    if (settings.dead_after_ms >= 4 * settings.heartbeat_ms) return {};
    return {Errc::invalid_argument, fmt::format("--dead-after-ms {} must be at least 4 times --heartbeat-ms {}",
                                                settings.dead_after_ms, settings.heartbeat_ms)};
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
    if (settings.http_listen.empty()) return {};
    auto endpoint = comm::parse_endpoint(settings.http_listen);
    if (!endpoint) return endpoint.error();
    auto bound = server.listen_http(*endpoint, settings.allow_remote);
    if (!bound) return bound.error();
    log_info("metrics at http://" + bound->to_string() + "/metrics");
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
        .heartbeat = milliseconds(settings.heartbeat_ms),
        .prefixes_max = static_cast<std::size_t>(settings.prefixes_max)};
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
    auto config = Config::load(config_argument(argc, argv), [](const char* name) { return std::getenv(name); });
    Settings settings;
    CLI::App app{"The coordinator of a kvgrid cluster: it decides which worker holds what."};
    app.set_version_flag("--version", kVersion);
    app.footer("Exit codes: 0 ended on request, 1 failed, 2 wrong usage.");
    const Config in_force = config ? *config : Config();
    SettingOptions options(in_force);
    describe(app, options, settings);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& wrong) {
        return app.exit(wrong) == 0 ? 0 : kUsage;
    }
    options.apply(app);
    if (const Status good = config ? check(settings) : config.error(); !good) {
        fmt::print(stderr, "{}\n", good.error().message);
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
