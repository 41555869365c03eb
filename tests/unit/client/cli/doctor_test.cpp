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

Facts healthy_facts_with_gpus() {
    Facts facts = healthy_facts();
    facts.gpu = {.device_nodes = true,
                 .driver = "550.54",
                 .libcuda = true,
                 .device_count = 4,
                 .worker_gpus = 4,
                 .nccl = 22809,
                 .pairs_apart = std::vector<GpuPair>()};
    facts.host.wanted_workers = 4;
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
    {"/dev/shm", Verdict::warn, [](Facts& f) { f.host.shared_memory_writable = false; }, "cannot be written to"},
    {"/tmp", Verdict::fail, [](Facts& f) { f.host.temporary_writable = false; }, "/tmp"},
    {"state directory", Verdict::fail, [](Facts& f) { f.host.state_dir_writable = false; }, "cannot be written to"},
    {"state directory", Verdict::warn, [](Facts& f) { f.host.local_cluster_abandoned = true; }, "was killed"},
    {"state directory", Verdict::warn, [](Facts& f) { f.host.state_dir_free_bytes = 0; }, "0 B"},
    {"memory", Verdict::warn, [](Facts& f) { f.host.available_memory_bytes = kGiB; }, "may use"},
    {"CPU", Verdict::warn, [](Facts& f) { f.host.vector_instructions = ""; }, "without AVX2"},
    {"clock", Verdict::warn, [](Facts& f) { f.host.seconds_since_1970 = 0; }, "years behind"},
    {"clock", Verdict::note, [](Facts& f) { f.host.clock_synchronised = false; }, "not synchronised"},
    {"GPU", Verdict::warn, [](Facts& f) { f.gpu.device_nodes = true; }, "no driver is loaded"},
    {"GPU", Verdict::warn, [](Facts& f) { f.gpu.driver = "550.54"; }, "no /dev/nvidia0"},
    {"GPU", Verdict::warn, [](Facts& f) { f.gpu = {.device_nodes = true, .driver = "550.54"}; }, "libcuda.so.1"},
    {"GPU", Verdict::warn,
     [](Facts& f) { f.gpu = {.device_nodes = true, .driver = "550.54", .libcuda = true, .cuda_error = "error 803"}; },
     "error 803"},
    {"cluster", Verdict::fail, [](Facts& f) { f.cluster.answers = false; }, "does not answer"},
    {"cluster", Verdict::warn, [](Facts& f) { f.cluster.ready = false; }, "not ready"},
    {"versions", Verdict::warn, [](Facts& f) { f.cluster.workers[1].version = "1.2.2"; }, "worker 2 on b 1.2.2"},
    {"versions", Verdict::warn, [](Facts& f) { f.cluster.version = "1.3.0"; }, "coordinator 1.3.0"},
};

const Fault kGpuFaults[] = {
    {"/dev/shm", Verdict::warn, [](Facts& f) { f.host.shared_memory_free_bytes = kGiB / 4; }, "256 MiB"},
    {"GPU", Verdict::warn, [](Facts& f) { f.gpu.worker_gpus = 0; }, "built without CUDA"},
    {"GPU peers", Verdict::note, [](Facts& f) { f.gpu.pairs_apart.reset(); }, "does not say"},
    {"GPU peers", Verdict::note,
     [](Facts& f) {
         f.gpu.pairs_apart = {{1, 3}};
     },
     "GPUs 1 and 3 do not reach"},
    {"GPU peers", Verdict::note,
     [](Facts& f) {
         f.gpu.pairs_apart = {{0, 1}, {0, 2}, {1, 2}};
     },
     "and 2 more pairs"},
    {"NCCL", Verdict::warn, [](Facts& f) { f.gpu.nccl.reset(); }, "libnccl.so.2"},
    {"NCCL", Verdict::warn, [](Facts& f) { f.gpu.nccl = 22005; }, "NCCL 2.20.5"},
    {"NCCL", Verdict::warn, [](Facts& f) { f.gpu.nccl = 2708; }, "NCCL 2.7.8"},
    {"NCCL", Verdict::note, [](Facts& f) { f.host.wanted_workers = 5; }, "5 workers on 4 GPUs"},
};

void expect_nothing(const Facts& facts) {
    for (const Finding& each : findings(facts)) {
        EXPECT_EQ(each.verdict, Verdict::ok) << each.check << ": " << each.what;
        EXPECT_TRUE(each.remedy.empty()) << each.check;
    }
}

void expect_alone(Facts facts, const Fault& fault) {
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

std::string what_is_found(const char* check, const Facts& facts) {
    const auto found = findings(facts);
    return std::ranges::find(found, check, &Finding::check)->what;
}

TEST(Doctor, FindsNothingOnAHealthyHost) {
    expect_nothing(healthy_facts());
    expect_nothing(healthy_facts_with_gpus());
}

TEST(Doctor, FindsEachFaultAloneAndNamesARemedy) {
    for (const Fault& fault : kFaults) expect_alone(healthy_facts(), fault);
    for (const Fault& fault : kGpuFaults) expect_alone(healthy_facts_with_gpus(), fault);
}

TEST(Doctor, NoGpuIsNoFault) {
    EXPECT_EQ(what_is_found("GPU", healthy_facts()), "no GPU: the CPU does the work");
    EXPECT_EQ(what_is_found("GPU peers", healthy_facts()), "no two GPUs");
    EXPECT_EQ(what_is_found("NCCL", healthy_facts()), "not needed without a GPU");
}

TEST(Doctor, SaysFromWhichNcclOnWorkersMayShareAGpuUntilItIsThere) {
    Facts facts = healthy_facts_with_gpus();
    EXPECT_EQ(what_is_found("NCCL", facts),
              "NCCL 2.28.9; several workers on one GPU join over NCCL from 2.30.0 on, and else over the host's memory");

    facts.gpu.nccl = 23003;
    facts.host.wanted_workers = 16;
    EXPECT_EQ(what_is_found("NCCL", facts), "NCCL 2.30.3");
}

TEST(Doctor, KnowsNoWorkersOnGpusThatItCouldNotCount) {
    Facts facts = healthy_facts_with_gpus();
    facts.gpu.worker_gpus.reset();
    facts.host.wanted_workers = 16;

    expect_nothing(facts);
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
