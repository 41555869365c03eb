#include "client/cli/find_cluster.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "client/cli/local/state_directory.h"

namespace kvgrid::cli {

FoundCluster choose_cluster(const SettingValue& coordinator, const std::optional<std::string>& local_endpoint,
                            const std::string& local_name) {
    if (coordinator.origin != Origin::built_in)
        return {coordinator.text, fmt::format("{} {}", name_of(coordinator.origin), coordinator.where)};
    if (local_endpoint) return {*local_endpoint, "local cluster " + local_name};
    return {coordinator.text, fmt::format("built in, since no local cluster {} runs", local_name)};
}

ClusterCommand::ClusterCommand(CommandLine& line, CLI::App& command) : line_(line), command_(command) {
    constexpr const char* kGroup = "Which cluster";
    line.settings.add(command, "cluster.coordinator", coordinator_)->group(kGroup);
    line.settings.add(command, "local.name", local_name_)->group(kGroup);
    line.settings.add(command, "cluster.timeout_ms", timeout_ms_)->group(kGroup);
}

FoundCluster ClusterCommand::find() const {
    const auto running =
        running_local_cluster(local_state_dir(line_.config.value("local.state_dir").text, local_name_));
    std::optional<std::string> endpoint;
    if (running && !running->endpoint.empty()) endpoint = running->endpoint;
    return choose_cluster(line_.settings.in_force(command_, "cluster.coordinator"), endpoint, local_name_);
}

Result<Client> ClusterCommand::connect(bool wait_until_ready) const {
    const FoundCluster found = find();
    auto client = Client::connect(
        found.endpoint, {.timeout = std::chrono::milliseconds(timeout_ms_), .wait_until_ready = wait_until_ready});
    if (client) return client;
    return {client.error().code, fmt::format("{} ({})", client.error().message, found.how)};
}

ExitCode ClusterCommand::fail(const Error& error, const std::string& next) const {
    if (!next.empty() || exit_code_of(error) != ExitCode::unreachable) return line_.fail(error, next);
    const bool named = line_.settings.in_force(command_, "cluster.coordinator").origin != Origin::built_in;
    return line_.fail(error, named ? "kvgrid doctor" : "kvgrid cluster start");
}

void on_cluster(CommandLine& line, CLI::App& command, std::function<ExitCode(const ClusterCommand&)> run) {
    auto options = std::make_shared<ClusterCommand>(line, command);
    line.on(command, [options, run = std::move(run)] { return run(*options); });
}

}  // namespace kvgrid::cli
