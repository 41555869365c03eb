#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "client/cli/doctor/findings.h"
#include "client/cli/doctor/gather_host.h"
#include "client/cli/find_cluster.h"
#include "core/units.h"
#include "core/version.h"

namespace kvgrid::cli {

namespace {

ClusterFacts gather_cluster(const ClusterCommand& command) {
    const FoundCluster found = command.find();
    ClusterFacts facts{.endpoint = found.endpoint, .found_by = found.how};
    auto client = command.connect(false);
    const auto status = client ? client->status() : client.error();
    if (!status) {
        facts.why_not = status.error().message;
        return facts;
    }
    facts.answers = true;
    facts.ready = status->ready;
    facts.why_not = status->not_ready_because;
    facts.version = status->version;
    for (const ClusterWorker& worker : status->workers)
        facts.workers.push_back({worker.worker.value, worker.host, worker.alive, worker.version});
    return facts;
}

LocalPlan local_plan(const ClusterCommand& command) {
    const Config& config = command.line().config;
    return {.name = command.local_name(),
            .state_dir = config.value("local.state_dir").text,
            .listen = config.value("local.listen").text,
            .workers = static_cast<int>(config.value("local.workers").number()),
            .memory_bytes_per_worker = parse_bytes(config.value("local.memory").text).value()};
}

void print_text(const std::vector<Finding>& found, bool color) {
    for (const Finding& each : found) {
        const char* code = each.verdict == Verdict::ok     ? "32"
                           : each.verdict == Verdict::fail ? "31"
                           : each.verdict == Verdict::warn ? "33"
                                                           : "36";
        const std::string verdict = color ? fmt::format("\033[{}m{:<4}\033[0m", code, name_of(each.verdict))
                                          : fmt::format("{:<4}", name_of(each.verdict));
        fmt::print("{}  {:<16} {}\n", verdict, each.check, each.what);
        if (!each.remedy.empty()) fmt::print("{:22} -> {}\n", "", each.remedy);
    }
}

nlohmann::json findings_json(const std::vector<Finding>& found) {
    nlohmann::json list = nlohmann::json::array();
    for (const Finding& each : found)
        list.push_back(
            {{"check", each.check}, {"verdict", name_of(each.verdict)}, {"what", each.what}, {"remedy", each.remedy}});
    return {{"healthy", healthy(found)}, {"findings", std::move(list)}};
}

ExitCode run(const ClusterCommand& command) {
    const Facts facts{.version = kVersion,
                      .host = gather_host(local_plan(command)),
                      .gpu = gather_gpu(),
                      .cluster = gather_cluster(command)};
    const std::vector<Finding> found = findings(facts);
    if (command.output().json) {
        print_json("doctor", findings_json(found));
    } else {
        print_text(found, may_color(command.output()));
    }
    return healthy(found) ? ExitCode::done : ExitCode::failed;
}

}  // namespace

void add_doctor(CommandLine& line) {
    on_cluster(line,
               line.command("doctor", "check what commonly goes wrong on this host and in the cluster, with remedies"),
               run);
}

}  // namespace kvgrid::cli
