// Each check judges facts, without looking at this machine: a healthy host has nothing to say, and each fault gives its own finding with a
// remedy.
#include <gtest/gtest.h>

#include <algorithm>

#include "client/cli/doctor/findings.h"
#include "client/cli/doctor/gather_host.h"

namespace kvgrid::cli {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

Facts healthy_facts() {
    Facts facts{.version = "1.2.3"};
    facts.host = {.root = false,
                  .missing_programs = {},
                  .mpi = {.mpirun = "/usr/bin/mpirun", .version = "4.1.4", .allowed_as_root = false},
                  .listen = "127.0.0.1:7070",
                  .listen_error = std::nullopt,
                  .state_dir = "/var/state/kvgrid/default",
                  .state_dir_free_bytes = 10 * kGiB,
                  .locked_memory_bytes = std::nullopt,
                  .open_files = 65'536,
                  .open_files_most = 65'536,
                  .shared_memory_bytes = 8 * kGiB,
                  .shared_memory_free_bytes = 8 * kGiB,
                  .temporary_free_bytes = 10 * kGiB,
                  .available_memory_bytes = 16 * kGiB,
                  .wanted_memory_bytes = 2 * kGiB,
                  .cores = 8,
                  .vector_instructions = "AVX2",
                  .clock_synchronised = true,
                  .seconds_since_1970 = 1'800'000'000};
    facts.cluster = {.endpoint = "127.0.0.1:7070",
                     .found_by = "environment KVGRID_COORDINATOR",
                     .answers = true,
                     .ready = true,
                     .version = "1.2.3",
                     .workers = {{1, "a", true, "1.2.3"}, {2, "b", true, "1.2.3"}}};
    return facts;
}

struct Fault {
    const char* check;
    Verdict verdict;
    void (*spoil)(Facts&);
    const char* what;  // in the finding
};

const Fault kFaults[] = {
    {"programs", Verdict::fail, [](Facts& f) { f.host.missing_programs = {"kvgrid-worker"}; }, "kvgrid-worker"},
    {"Open MPI", Verdict::fail, [](Facts& f) { f.host.mpi.mpirun.reset(); }, "not in PATH"},
    {"Open MPI", Verdict::warn, [](Facts& f) { f.host.mpi.version = "3.1.0"; }, "3.1.0"},
    {"MPI as root", Verdict::note, [](Facts& f) { f.host.root = true; }, "root"},
    {"port", Verdict::fail, [](Facts& f) { f.host.listen_error = "address in use"; }, "address in use"},
    {"locked memory", Verdict::warn, [](Facts& f) { f.host.locked_memory_bytes = 64 << 10; }, "64.0 KiB"},
    {"open files", Verdict::warn, [](Facts& f) { f.host.open_files = 1'024; }, "1024"},
    {"open files", Verdict::fail, [](Facts& f) { f.host.open_files = f.host.open_files_most = 64; }, "64"},
    {"/dev/shm", Verdict::warn, [](Facts& f) { f.host.shared_memory_bytes.reset(); }, "no /dev/shm"},
    {"/dev/shm", Verdict::warn, [](Facts& f) { f.host.shared_memory_free_bytes = 1 << 20; }, "1.00 MiB"},
    {"/tmp", Verdict::fail, [](Facts& f) { f.host.temporary_writable = false; }, "/tmp"},
    {"state directory", Verdict::fail, [](Facts& f) { f.host.state_dir_writable = false; }, "cannot be written to"},
    {"state directory", Verdict::warn, [](Facts& f) { f.host.local_cluster_abandoned = true; }, "was killed"},
    {"state directory", Verdict::warn, [](Facts& f) { f.host.state_dir_free_bytes = 0; }, "0 B"},
    {"memory", Verdict::warn, [](Facts& f) { f.host.available_memory_bytes = kGiB; }, "may use"},
    {"CPU", Verdict::warn, [](Facts& f) { f.host.vector_instructions = ""; }, "without AVX2"},
    {"clock", Verdict::warn, [](Facts& f) { f.host.seconds_since_1970 = 0; }, "years behind"},
    {"clock", Verdict::note, [](Facts& f) { f.host.clock_synchronised = false; }, "not synchronised"},
    {"GPU", Verdict::warn,
     [](Facts& f) {
         f.gpu = {.device_nodes = true,
                  .driver = "550.54",
                  .libcuda = true,
                  .device_count = 8,
                  .worker_gpus = 0,
                  .nccl = "2.28.3"};
     },
     "built without CUDA"},
    {"GPU", Verdict::warn, [](Facts& f) { f.gpu.device_nodes = true; }, "no driver is loaded"},
    {"GPU", Verdict::warn, [](Facts& f) { f.gpu.driver = "550.54"; }, "no /dev/nvidia0"},
    {"GPU", Verdict::warn, [](Facts& f) { f.gpu = {.device_nodes = true, .driver = "550.54"}; }, "libcuda.so.1"},
    {"GPU", Verdict::warn,
     [](Facts& f) { f.gpu = {.device_nodes = true, .driver = "550.54", .libcuda = true, .cuda_error = "error 803"}; },
     "error 803"},
    {"NCCL", Verdict::warn,
     [](Facts& f) { f.gpu = {.device_nodes = true, .driver = "550.54", .libcuda = true, .device_count = 8}; },
     "libnccl.so.2"},
    {"cluster", Verdict::fail, [](Facts& f) { f.cluster.answers = false; }, "does not answer"},
    {"cluster", Verdict::warn, [](Facts& f) { f.cluster.ready = false; }, "not ready"},
    {"versions", Verdict::warn, [](Facts& f) { f.cluster.workers[1].version = "1.2.2"; }, "worker 2 on b 1.2.2"},
    {"versions", Verdict::warn, [](Facts& f) { f.cluster.version = "1.3.0"; }, "coordinator 1.3.0"},
};

TEST(Doctor, FindsNothingOnAHealthyHost) {
    for (const Finding& each : findings(healthy_facts())) {
        EXPECT_EQ(each.verdict, Verdict::ok) << each.check << ": " << each.what;
        EXPECT_TRUE(each.remedy.empty()) << each.check;
    }
}

TEST(Doctor, FindsEachFaultAloneAndNamesARemedy) {
    for (const Fault& fault : kFaults) {
        Facts facts = healthy_facts();
        fault.spoil(facts);
        const auto found = findings(facts);
        const auto at = std::ranges::find(found, fault.check, &Finding::check);
        ASSERT_NE(at, found.end()) << fault.check;
        EXPECT_EQ(at->verdict, fault.verdict) << fault.check << ": " << at->what;
        EXPECT_NE(at->what.find(fault.what), std::string::npos) << at->what;
        EXPECT_FALSE(at->remedy.empty()) << fault.check;
        EXPECT_EQ(healthy(found), fault.verdict != Verdict::fail) << fault.check;
        EXPECT_EQ(std::ranges::count_if(found, [](const Finding& each) { return each.verdict != Verdict::ok; }), 1)
            << fault.check;
    }
}

TEST(Doctor, NoGpuIsNoFault) {
    const auto found = findings(healthy_facts());
    EXPECT_EQ(std::ranges::find(found, "GPU", &Finding::check)->what, "no GPU: the CPU does the work");
}

TEST(Doctor, NoClusterIsNoFaultWhereNoneIsConfigured) {
    Facts facts = healthy_facts();
    facts.cluster = {.endpoint = "127.0.0.1:7070", .found_by = "built in, since no local cluster default runs"};

    EXPECT_TRUE(healthy(findings(facts)));
}

TEST(Doctor, ThePortOfARunningLocalClusterIsItsOwn) {
    Facts facts = healthy_facts();
    facts.host.local_cluster_runs = true;
    facts.host.listen_error = "address in use";

    EXPECT_TRUE(healthy(findings(facts)));
}

TEST(Doctor, ReadsTheVersionOfOpenMpi) {
    EXPECT_EQ(open_mpi_version("mpirun (Open MPI) 4.1.4\n\nReport bugs to"), "4.1.4");
    EXPECT_EQ(open_mpi_version("HYDRA build details:"), std::nullopt);
}

}  // namespace
}  // namespace kvgrid::cli
