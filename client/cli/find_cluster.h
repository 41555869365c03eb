#pragma once

#include <functional>
#include <optional>
#include <string>

#include "client/cli/command_line.h"
#include "client/kvgrid.h"

namespace kvgrid::cli {

struct FoundCluster {
    std::string endpoint;
    std::string how;  // "flag --coordinator", "local cluster default", ...
};

// Where a cluster is: as a flag, the environment or the configuration file says, else the local cluster that runs, else what is
// built in.
FoundCluster choose_cluster(const SettingValue& coordinator, const std::optional<std::string>& local_endpoint,
                            const std::string& local_name);

// A command that talks to a cluster: its options, and what it does with them.
class ClusterCommand {
  public:
    // `command` gets the options. Both outlive this.
    ClusterCommand(CommandLine& line, CLI::App& command);

    FoundCluster find() const;
    // An error says where which cluster was looked for. Not waiting: nobody is called yet.
    Result<Client> connect(bool wait_until_ready = true) const;

    // As CommandLine::fail; for a cluster that does not answer the next command starts or examines one.
    ExitCode fail(const Error& error, const std::string& next = "") const;

    CommandLine& line() const { return line_; }
    const std::string& local_name() const { return local_name_; }
    const OutputOptions& output() const { return line_.output; }

  private:
    CommandLine& line_;
    const CLI::App& command_;
    std::string coordinator_;
    std::string local_name_;
    int timeout_ms_ = 0;
};

// `command` with the options of one that talks to a cluster, and what runs when it is chosen.
void on_cluster(CommandLine& line, CLI::App& command, std::function<ExitCode(const ClusterCommand&)> run);

}  // namespace kvgrid::cli
