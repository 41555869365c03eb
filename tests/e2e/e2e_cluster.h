#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "analysis/trace.h"
#include "client/cli/local/local_cluster.h"
#include "client/cli/local/temporary_directory.h"
#include "client/kvgrid.h"

namespace kvgrid::e2e {

inline constexpr std::uint64_t kMemoryBytes = std::uint64_t{256} << 20;  // of each worker; committed page by page

// A cluster with a client, for the length of a test. When it is stopped, no process of it may be left, and no program may have
// written a sanitizer's report into its log.
class E2eCluster {
  public:
    explicit E2eCluster(int workers, const std::vector<std::string>& worker_arguments = {});
    ~E2eCluster();

    Client& client() { return *client_; }
    cli::LocalCluster& cluster() { return *cluster_; }

  private:
    void expect_log_without(const std::string& name, const std::vector<std::string>& reports) const;

    cli::TemporaryDirectory directory_;
    std::optional<cli::LocalCluster> cluster_;
    std::optional<Client> client_;
};

// The trace of tests/data.
const analysis::Trace& real_trace();

// A program of the folder that this test runs from.
std::filesystem::path program(const std::string& name);

}  // namespace kvgrid::e2e
