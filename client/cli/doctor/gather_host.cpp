#include "client/cli/doctor/gather_host.h"

#include <sys/resource.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "client/cli/demo/available_memory.h"
#include "client/cli/local/child_process.h"
#include "client/cli/local/open_mpi.h"
#include "client/cli/local/state_directory.h"
#include "client/cli/local/temporary_directory.h"
#include "client/cli/local/text_file.h"
#include "comm/rpc/endpoint.h"
#include "comm/rpc/listener.h"

namespace kvgrid::cli {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto kMpirunTimeout = 2s;

bool is_set(const char* variable) {
    const char* value = std::getenv(variable);
    return value && *value;
}

// An existing folder on the way to a directory that may not be there yet.
fs::path nearest_existing(fs::path directory) {
    std::error_code ignored;
    while (!directory.empty() && !fs::exists(directory, ignored) && directory != directory.parent_path())
        directory = directory.parent_path();
    return directory;
}

std::uint64_t free_bytes(const fs::path& directory) {
    std::error_code error;
    const fs::space_info space = fs::space(directory, error);
    return error ? 0 : space.available;
}

std::optional<std::string> mpirun_version(const fs::path& mpirun) {
    const auto directory = TemporaryDirectory::make();
    if (!directory) return std::nullopt;
    const fs::path log = directory->path() / "version";
    auto child = ChildProcess::start({.arguments = {mpirun, "--version"}, .environment = {}, .log = log});
    if (!child || !child->wait_until(deadline_in(kMpirunTimeout))) return std::nullopt;
    const auto text = whole_text(log);
    return text ? open_mpi_version(*text) : std::nullopt;
}

MpiFacts gather_mpi() {
    MpiFacts facts;
    facts.allowed_as_root = is_set("OMPI_ALLOW_RUN_AS_ROOT") && is_set("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM");
    if (const auto mpirun = find_mpirun()) {
        facts.mpirun = mpirun->string();
        facts.version = mpirun_version(*mpirun);
    }
    return facts;
}

// As a coordinator would, and then no more.
std::optional<std::string> listen_error(const std::string& text) {
    const auto endpoint = comm::parse_endpoint(text);
    if (!endpoint) return endpoint.error().message;
    const auto listener = comm::open_listener(*endpoint, true);
    return listener ? std::nullopt : std::optional(listener.error().message);
}

void gather_limits(HostFacts& facts) {
    rlimit locked{}, files{};
    getrlimit(RLIMIT_MEMLOCK, &locked);
    getrlimit(RLIMIT_NOFILE, &files);
    if (locked.rlim_cur != RLIM_INFINITY) facts.locked_memory_bytes = locked.rlim_cur;
    facts.open_files = files.rlim_cur;
    facts.open_files_most = files.rlim_max;
}

void gather_space(HostFacts& facts, const LocalPlan& plan) {
    std::error_code error;
    const fs::space_info shared = fs::space("/dev/shm", error);
    if (!error) {
        facts.shared_memory_bytes = shared.capacity;
        facts.shared_memory_free_bytes = shared.available;
        facts.shared_memory_writable = access("/dev/shm", W_OK) == 0;
    }
    facts.temporary_writable = access("/tmp", W_OK) == 0;
    facts.temporary_free_bytes = free_bytes("/tmp");
    const fs::path state = local_state_dir(plan.state_dir, plan.name);
    facts.state_dir = state.string();
    facts.state_dir_writable = access(nearest_existing(state).c_str(), W_OK) == 0;
    facts.state_dir_free_bytes = free_bytes(nearest_existing(state));
    facts.local_cluster_runs = running_local_cluster(state).has_value();
    facts.local_cluster_abandoned = abandoned_local_cluster(state).has_value();
}

std::string vector_instructions() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return "AVX-512";
    if (__builtin_cpu_supports("avx2")) return "AVX2";
    return "";
#elif defined(__aarch64__)
    return "NEON";
#else
    return "";
#endif
}

std::optional<bool> clock_synchronised() {
    timex state{};
    const int answer = adjtimex(&state);
    if (answer < 0) return std::nullopt;
    return answer != TIME_ERROR && !(state.status & STA_UNSYNC);
}

}  // namespace

std::optional<std::string> open_mpi_version(const std::string& text) {
    constexpr std::string_view kBefore = "(Open MPI) ";
    const auto at = text.find(kBefore);
    if (at == text.npos) return std::nullopt;
    const auto begin = at + kBefore.size();
    return text.substr(begin, text.find_first_of(" \n", begin) - begin);
}

HostFacts gather_host(const LocalPlan& plan) {
    HostFacts facts;
    facts.root = geteuid() == 0;
    std::error_code error;
    const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
    for (const char* program : {"kvgrid-coordinator", "kvgrid-worker"}) {
        if (access((folder / program).c_str(), X_OK) != 0) facts.missing_programs.emplace_back(program);
    }
    facts.mpi = gather_mpi();
    gather_limits(facts);
    gather_space(facts, plan);
    facts.listen = plan.listen;
    if (!facts.local_cluster_runs) facts.listen_error = listen_error(plan.listen);
    facts.available_memory_bytes = available_memory_bytes();
    facts.wanted_workers = plan.workers;
    facts.wanted_memory_bytes = static_cast<std::uint64_t>(plan.workers) * plan.memory_bytes_per_worker;
    facts.cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    facts.vector_instructions = vector_instructions();
    facts.clock_synchronised = clock_synchronised();
    facts.seconds_since_1970 =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    return facts;
}

}  // namespace kvgrid::cli
