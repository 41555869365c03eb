// Starts a cluster, says the mark of its processes on standard output, and waits to be killed: for local_cluster_test.cpp.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "client/cli/local/local_cluster.h"

int main() {
    const auto cluster = kvgrid::cli::LocalCluster::start({.workers = 2, .state_dir = {}, .interrupted = {}});
    if (!cluster) {
        fmt::print(stderr, "{}\n", cluster.error().to_string());
        return 1;
    }
    fmt::print("held {}\n", cluster->mark());
    std::fflush(stdout);
    for (;;) pause();
}
