#include <fmt/format.h>

#include "client/cli/commands/cluster_commands.h"
#include "client/cli/find_cluster.h"
#include "client/cli/json.h"
#include "core/units.h"

namespace kvgrid::cli {

namespace {

nlohmann::json status_json(const ClusterStatus& status, const FoundCluster& found) {
    nlohmann::json workers = nlohmann::json::array();
    for (const ClusterWorker& worker : status.workers) workers.push_back(as_json(worker));
    return {{"coordinator", found.endpoint},
            {"found_by", found.how},
            {"version", status.version},
            {"generation", status.generation.value},
            {"ready", status.ready},
            {"not_ready_because", status.not_ready_because},
            {"expected_workers", status.expected_workers},
            {"http_endpoint", status.http_endpoint},
            {"workers", std::move(workers)}};
}

void print_text(const ClusterStatus& status, const FoundCluster& found) {
    fmt::print("{}\n", status.ready ? "ready" : "not ready: " + status.not_ready_because);
    fmt::print("coordinator  {} ({})\n", found.endpoint, found.how);
    fmt::print("version      {}, generation {}\n", status.version, status.generation.value);
    if (!status.http_endpoint.empty()) fmt::print("metrics      http://{}/metrics\n", status.http_endpoint);
    fmt::print("workers      {} of {}\n", status.workers.size(), status.expected_workers);
    for (const ClusterWorker& worker : status.workers) {
        fmt::print("  {:<10} worker {:<4} {}  {} on {} (process {}), {}\n",
                   worker.rank < 0 ? "standby" : fmt::format("rank {}", worker.rank), worker.worker.value,
                   worker.alive ? "alive" : "dead ", worker.endpoint, worker.host, worker.process_id,
                   format_bytes(worker.memory_bytes));
    }
}

ExitCode run(const ClusterCommand& command) {
    auto client = command.connect(false);
    if (!client) return command.fail(client.error());
    const FoundCluster found = command.find();
    const auto status = client->status();
    if (!status)
        return command.fail({status.error().code, fmt::format("no coordinator answers at {} ({}): {}", found.endpoint,
                                                              found.how, status.error().message)});
    if (command.output().json) {
        print_json("cluster.status", status_json(*status, found));
    } else {
        print_text(*status, found);
    }
    return status->ready ? ExitCode::done : ExitCode::degraded;
}

}  // namespace

void add_cluster_status(CommandLine& line) {
    CLI::App& command =
        line.command(line.noun("cluster", ""), "status", "whether a cluster is ready, and who is in it");
    on_cluster(line, command, run);
}

}  // namespace kvgrid::cli
