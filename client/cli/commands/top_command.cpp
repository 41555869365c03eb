#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "client/cli/find_cluster.h"
#include "client/cli/interrupt.h"
#include "client/cli/json.h"
#include "client/cli/top/screen.h"
#include "client/cli/top/top_source.h"

namespace kvgrid::cli {

namespace {

using namespace std::chrono_literals;

constexpr auto kAnswerTimeout = 2s;  // of the display: what takes longer is shown as a problem
constexpr auto kPollInterval = 50ms;
constexpr int kPlainColumns = 100;

struct TopOptions {
    bool once = false;
    int interval_ms = 1'000;
    int samples = 0;  // 0: until interrupted
};

// Snapshots, with the rates since the one before.
struct Newest {
    std::optional<TopSnapshot> snapshot;
    std::optional<TopRates> rates;

    void take(TopSnapshot fresh) {
        rates = snapshot ? top_rates(*snapshot, fresh) : std::nullopt;
        snapshot = std::move(fresh);
    }
};

nlohmann::json top_json(const Newest& newest) {
    const TopSnapshot& now = *newest.snapshot;
    nlohmann::json object{{"coordinator", now.coordinator}, {"generation", now.status.generation.value},
                          {"ready", now.status.ready},      {"not_ready_because", now.status.not_ready_because},
                          {"problem", now.problem},         {"workers", nlohmann::json::array()}};
    for (const ClusterWorker& worker : now.status.workers) object["workers"].push_back(as_json(worker));
    if (now.occupancy) {
        object["operations"] = now.occupancy->operations;
        object["join_bytes"] = now.occupancy->join_bytes;
        object["layer_calls"] = now.occupancy->layer_calls;
        object["merged_layer_calls"] = now.occupancy->merged_layer_calls;
    }
    if (newest.rates) {
        object["rates"] = {{"operations", newest.rates->operations},
                           {"join_bytes", newest.rates->join_bytes},
                           {"layer_calls", newest.rates->layer_calls},
                           {"merged_layer_calls", newest.rates->merged_layer_calls}};
    }
    return object;
}

void show_plain(const Newest& newest, const TopOptions& options, const OutputOptions& output) {
    if (output.json) {
        print_json("top", top_json(newest));
    } else if (options.once) {
        const TopStyle style{.columns = kPlainColumns, .color = may_color(output)};
        for (const std::string& each : top_lines(*newest.snapshot, newest.rates, style)) fmt::print("{}\n", each);
    } else {
        fmt::print("{}\n", top_line(*newest.snapshot, newest.rates));
    }
    std::fflush(stdout);
}

// Lines, for pipes and scripts. Once: two looks, so that there are rates.
ExitCode run_plain(const ClusterCommand& command, Client client, const TopOptions& options) {
    InterruptWatch watch;
    Newest newest;
    const std::string coordinator = command.find().endpoint;
    const int looks = options.once ? 2 : options.samples;
    for (int look = 1; !watch.interrupted(); ++look) {
        newest.take(take_snapshot(client, coordinator));
        if (!newest.snapshot->problem.empty() && options.once)
            return command.fail({Errc::unavailable, newest.snapshot->problem});
        if (!options.once || look == looks) show_plain(newest, options, command.output());
        if (look == looks) return newest.snapshot->status.ready ? ExitCode::done : ExitCode::degraded;
        const Deadline next = deadline_in(std::chrono::milliseconds(options.interval_ms));
        while (!watch.interrupted() && std::chrono::steady_clock::now() < next)
            std::this_thread::sleep_for(kPollInterval);
    }
    return ExitCode::interrupted;
}

ExitCode run_screen(const ClusterCommand& command, Client client, Screen& screen, const TopOptions& options) {
    TopSource source(std::move(client), command.find().endpoint, std::chrono::milliseconds(options.interval_ms));
    Newest newest;
    for (;;) {
        const Screen::Event event = screen.wait(std::chrono::milliseconds(options.interval_ms), source.descriptor());
        if (event == Screen::Event::quit) return ExitCode::done;
        if (event == Screen::Event::refresh) {
            if (auto fresh = source.take()) newest.take(*std::move(fresh));
        }
        if (!newest.snapshot) continue;
        screen.draw(
            top_lines(*newest.snapshot, newest.rates,
                      {.columns = screen.columns(), .rows = screen.rows(), .color = may_color(command.output())}));
    }
}

ExitCode run(const ClusterCommand& command, const TopOptions& options) {
    const bool plain =
        options.once || options.samples > 0 || command.output().json || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO);
    if (plain) {
        auto client = command.connect(false);
        if (!client) return command.fail(client.error());
        return run_plain(command, *std::move(client), options);
    }
    // Whether there is a cluster is said before the screen is taken.
    if (auto reached = command.connect(false); !reached) return command.fail(reached.error());
    auto screen = Screen::open();
    if (!screen) return command.fail(screen.error());
    auto client = Client::connect(command.find().endpoint, {.timeout = kAnswerTimeout, .wait_until_ready = false});
    if (!client) return command.fail(client.error());
    return run_screen(command, *std::move(client), *screen, options);
}

}  // namespace

void add_top(CommandLine& line) {
    CLI::App& command = line.command("top", "live occupancy and rates of a cluster; q quits");
    auto options = std::make_shared<TopOptions>();
    command.add_flag("--once", options->once, "print one picture, of one interval, and end");
    command.add_option("--interval-ms", options->interval_ms, "how often to look")
        ->check(CLI::Range(50, 60'000))
        ->type_name("NUMBER")
        ->capture_default_str();
    command
        .add_option("--samples", options->samples,
                    "print so many lines and end; without it, and without a terminal, go on")
        ->check(CLI::Range(1, 1'000'000))
        ->type_name("NUMBER");
    on_cluster(line, command, [options](const ClusterCommand& chosen) { return run(chosen, *options); });
}

}  // namespace kvgrid::cli
