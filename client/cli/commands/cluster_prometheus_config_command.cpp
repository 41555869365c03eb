#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "client/cli/commands/cluster_commands.h"
#include "client/cli/find_cluster.h"
#include "client/cli/monitor/prometheus_config.h"

namespace kvgrid::cli {

namespace {

ExitCode run(const ClusterCommand& command, int scrape_interval_s) {
    auto client = command.connect(false);
    if (!client) return command.fail(client.error());
    const auto status = client->status();
    if (!status) return command.fail(status.error());
    const std::string config = prometheus_config(*status, scrape_interval_s);
    if (command.output().json)
        print_json("cluster.prometheus-config", {{"config", config}});
    else
        fmt::print("{}", config);
    return ExitCode::done;
}

}  // namespace

void add_cluster_prometheus_config(CommandLine& line) {
    CLI::App& command = line.command(line.noun("cluster", ""), "prometheus-config",
                                     "a configuration with which Prometheus scrapes all processes of a cluster");
    auto scrape_interval_s = std::make_shared<int>(5);
    command.add_option("--scrape-interval", *scrape_interval_s, "seconds between two scrapes")
        ->check(CLI::Range(1, 3600))
        ->type_name("SECONDS")
        ->capture_default_str();
    on_cluster(line, command,
               [scrape_interval_s](const ClusterCommand& chosen) { return run(chosen, *scrape_interval_s); });
}

}  // namespace kvgrid::cli
