#include "client/cli/monitor/prometheus_config.h"

#include <fmt/format.h>

#include <map>
#include <vector>

namespace kvgrid::cli {

namespace {

struct Target {
    std::string address;
    std::map<std::string, std::string> labels;
};

// As YAML's double quotes have it.
std::string quoted(const std::string& text) {
    std::string quotes = "\"";
    for (const char c : text) {
        const bool control = static_cast<unsigned char>(c) < 0x20;
        if (c == '"' || c == '\\') quotes += '\\';
        quotes += control ? fmt::format("\\x{:02x}", c) : std::string(1, c);
    }
    return quotes + "\"";
}

// A process that listens on every address is reached by its host's name.
std::string address_of(const ClusterWorker& worker) {
    for (const char* any : {"0.0.0.0", "[::]"}) {
        const std::string start = std::string(any) + ":";
        if (worker.http_endpoint.starts_with(start))
            return worker.host + ":" + worker.http_endpoint.substr(start.size());
    }
    return worker.http_endpoint;
}

bool can_be_scraped(const std::string& endpoint) {
    return !endpoint.empty() && !endpoint.starts_with("unix:");
}

std::string job(const std::string& name, const std::vector<Target>& targets) {
    std::string text = fmt::format("  - job_name: {}\n    static_configs:\n", name);
    if (targets.empty()) text += "      []\n";
    for (const Target& target : targets) {
        text += fmt::format("      - targets: [{}]\n", quoted(target.address));
        if (!target.labels.empty()) text += "        labels:\n";
        for (const auto& [label, value] : target.labels)
            text += fmt::format("          {}: {}\n", label, quoted(value));
    }
    return text;
}

}  // namespace

std::string prometheus_config(const ClusterStatus& status, int scrape_interval_s) {
    std::vector<Target> coordinators, workers;
    std::string left_out;
    if (can_be_scraped(status.http_endpoint))
        coordinators.push_back({status.http_endpoint, {}});
    else
        left_out += "# The coordinator serves no HTTP over TCP: start it with --http-listen.\n";
    for (const ClusterWorker& worker : status.workers) {
        if (can_be_scraped(worker.http_endpoint))
            workers.push_back({address_of(worker), {{"rank", fmt::format("{}", worker.rank)}, {"host", worker.host}}});
        else
            left_out +=
                fmt::format("# Worker {} serves no HTTP over TCP: start it with --http-listen.\n", worker.worker.value);
    }
    return fmt::format(
        "# The kvgrid cluster of generation {}. Ports of a local cluster are new each time that it is started.\n{}"
        "global:\n  scrape_interval: {}s\nscrape_configs:\n{}{}",
        status.generation.value, left_out, scrape_interval_s, job("kvgrid-coordinator", coordinators),
        job("kvgrid-worker", workers));
}

}  // namespace kvgrid::cli
