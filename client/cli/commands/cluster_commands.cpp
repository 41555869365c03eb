#include "client/cli/commands/cluster_commands.h"

namespace kvgrid::cli {

void add_cluster(CommandLine& line) {
    line.noun("cluster", "a cluster: start and stop one on this host, or look at any");
    add_cluster_start(line);
    add_cluster_stop(line);
    add_cluster_status(line);
    add_cluster_prometheus_config(line);
    add_cluster_keep(line);
}

void add_local_name_options(CommandLine& line, CLI::App& command, LocalNameOptions& options) {
    line.settings.add(command, "local.name", options.name)->check([](const std::string& name) {
        const bool plain = !name.empty() && name[0] != '.' && name.find('/') == name.npos;
        return plain ? std::string() : "a name may have no '/' and not begin with '.'";
    });
    line.settings.add(command, "local.state_dir", options.state_dir);
}

}  // namespace kvgrid::cli
