#pragma once

#include "client/cli/command_line.h"

namespace kvgrid::cli {

// The verbs of `kvgrid cluster`.
void add_cluster_start(CommandLine& line);
void add_cluster_stop(CommandLine& line);
void add_cluster_status(CommandLine& line);
void add_cluster_prometheus_config(CommandLine& line);
void add_cluster_keep(CommandLine& line);  // the process behind `start`; not shown

// Which cluster of this host.
struct LocalNameOptions {
    std::string name;
    std::string state_dir;
};
void add_local_name_options(CommandLine& line, CLI::App& command, LocalNameOptions& options);

}  // namespace kvgrid::cli
