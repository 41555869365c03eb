#include "tests/e2e/e2e_cluster.h"

#include <gtest/gtest.h>

#include <fstream>

#include "client/cli/local/process_scan.h"

namespace kvgrid::e2e {

namespace {

const std::vector<std::string> kDefects{"ERROR: AddressSanitizer", "WARNING: ThreadSanitizer", "runtime error:"};

}  // namespace

E2eCluster::E2eCluster(int workers, const std::vector<std::string>& worker_arguments)
    : directory_(cli::TemporaryDirectory::make().value()) {
    cluster_.emplace(cli::LocalCluster::start({.workers = workers,
                                               .memory_bytes_per_worker = kMemoryBytes,
                                               .threads_per_worker = 1,
                                               .state_dir = directory_.path(),
                                               .worker_arguments = worker_arguments,
                                               .interrupted = {}})
                         .value());
    client_.emplace(Client::connect(cluster_->endpoint()).value());
}

E2eCluster::~E2eCluster() {
    client_.reset();
    const std::string mark = cluster_->mark();
    const Status stopped = cluster_->stop();
    EXPECT_TRUE(stopped) << stopped.error().to_string();
    EXPECT_TRUE(cli::processes_naming(mark).empty());
    expect_log_without("coordinator.log", {"LeakSanitizer"});
    expect_log_without("coordinator.log", kDefects);
    expect_log_without("workers.log", kDefects);  // of leaks there are some: Open MPI keeps memory to the end
}

void E2eCluster::expect_log_without(const std::string& name, const std::vector<std::string>& reports) const {
    std::ifstream log(directory_.path() / name);
    for (std::string line; std::getline(log, line);) {
        for (const std::string& report : reports) {
            EXPECT_EQ(line.find(report), line.npos) << name << ": " << line;
        }
    }
}

const analysis::Trace& real_trace() {
    static const analysis::Trace trace =
        analysis::read_trace(std::filesystem::path(KVGRID_TEST_DATA) / "smollm2_135m_instruct.safetensors").value();
    return trace;
}

std::filesystem::path program(const std::string& name) {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

}  // namespace kvgrid::e2e
