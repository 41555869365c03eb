#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "client/cli/command_line.h"
#include "client/kvgrid.h"
#include "core/units.h"

namespace kvgrid::cli {

namespace {

struct StatusOptions {
    std::string coordinator = "127.0.0.1:7070";
    int timeout_ms = 5'000;
    bool json = false;
};

nlohmann::json as_json(const ClusterWorker& worker) {
    return {{"worker", worker.worker.value},      {"rank", worker.rank},
            {"endpoint", worker.endpoint},        {"host", worker.host},
            {"process_id", worker.process_id},    {"alive", worker.alive},
            {"memory_bytes", worker.memory_bytes}};
}

nlohmann::json as_json(const ClusterStatus& status) {
    nlohmann::json workers = nlohmann::json::array();
    for (const ClusterWorker& worker : status.workers) workers.push_back(as_json(worker));
    return {{"format", "kvgrid.status"},
            {"format_version", 1},
            {"version", status.version},
            {"generation", status.generation.value},
            {"ready", status.ready},
            {"not_ready_because", status.not_ready_because},
            {"expected_workers", status.expected_workers},
            {"workers", std::move(workers)}};
}

void print_text(const ClusterStatus& status) {
    fmt::print("kvgrid {}, generation {}: {}\n", status.version, status.generation.value,
               status.ready ? "ready" : "not ready: " + status.not_ready_because);
    fmt::print("{} of {} workers\n", status.workers.size(), status.expected_workers);
    for (const ClusterWorker& worker : status.workers) {
        fmt::print("  {:<10} worker {:<4} {}  {} on {} (process {}), {}\n",
                   worker.rank < 0 ? "standby" : fmt::format("rank {}", worker.rank), worker.worker.value,
                   worker.alive ? "alive" : "dead ", worker.endpoint, worker.host, worker.process_id,
                   format_bytes(worker.memory_bytes));
    }
}

ExitCode run(const StatusOptions& options) {
    auto client = Client::connect(options.coordinator, {.timeout = std::chrono::milliseconds(options.timeout_ms)});
    if (!client) return report(client.error());
    const auto status = client->status();
    if (!status) return report(status.error());
    if (options.json) {
        fmt::print("{}\n", as_json(*status).dump(2));
    } else {
        print_text(*status);
    }
    return status->ready ? ExitCode::done : ExitCode::failed;
}

}  // namespace

void add_status(CommandLine& line) {
    CLI::App& command = *line.app.add_subcommand("status", "whether a cluster is ready, and who is in it");
    auto options = std::make_shared<StatusOptions>();
    command.add_option("--coordinator", options->coordinator, "host:port or unix:/path")->capture_default_str();
    command.add_option("--timeout-ms", options->timeout_ms, "how long to wait for an answer")
        ->check(CLI::Range(1, 600'000))
        ->capture_default_str();
    command.add_flag("--json", options->json, "as JSON");
    line.on(command, [options] { return run(*options); });
}

}  // namespace kvgrid::cli
