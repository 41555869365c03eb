// A check is a function of the facts and nothing else; the table at the end is all of them.
#include "client/cli/doctor/findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "comm/collective/nccl/nccl_version.h"
#include "core/units.h"

namespace kvgrid::cli {

namespace {

using comm::kNcclBuiltFor;
using comm::kNcclSharesGpus;
using comm::nccl_version_text;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kLockedMemoryWanted = 64 * kMiB;  // what RDMA and pinned buffers begin with
constexpr std::uint64_t kOpenFilesWanted = 4'096;         // 64 clients, their workers, and room
constexpr std::uint64_t kOpenFilesLeast = 256;
constexpr std::uint64_t kSharedMemoryWanted = 64 * kMiB;         // containers often have just that, and MPI wants more
constexpr std::uint64_t kSharedMemoryWantedByGpus = 512 * kMiB;  // NCCL's guide gives containers 1 GiB
constexpr std::uint64_t kDiskWanted = 256 * kMiB;
constexpr std::int64_t kYear2024 = 1'704'067'200;

Finding ok(std::string what) {
    return {"", Verdict::ok, std::move(what), ""};
}
Finding note(std::string what, std::string remedy) {
    return {"", Verdict::note, std::move(what), std::move(remedy)};
}
Finding warn(std::string what, std::string remedy) {
    return {"", Verdict::warn, std::move(what), std::move(remedy)};
}
Finding fail(std::string what, std::string remedy) {
    return {"", Verdict::fail, std::move(what), std::move(remedy)};
}

Finding programs(const Facts& facts) {
    if (facts.host.missing_programs.empty()) return ok("kvgrid-coordinator and kvgrid-worker are beside this program");
    return fail(fmt::format("missing beside this program: {}", fmt::join(facts.host.missing_programs, ", ")),
                "install all of kvgrid's programs into one folder, or build them: ./dev build");
}

Finding mpirun(const Facts& facts) {
    const MpiFacts& mpi = facts.host.mpi;
    if (!mpi.mpirun) return fail("mpirun is not in PATH", "install Open MPI: apt-get install openmpi-bin");
    if (!mpi.version)
        return warn(*mpi.mpirun + " does not say its version", "run `mpirun --version`; kvgrid wants Open MPI 4.1");
    if (!mpi.version->starts_with("4."))
        return warn(fmt::format("{} is Open MPI {}", *mpi.mpirun, *mpi.version), "kvgrid is tested with Open MPI 4.1");
    return ok(fmt::format("Open MPI {} at {}", *mpi.version, *mpi.mpirun));
}

Finding mpi_as_root(const Facts& facts) {
    if (!facts.host.root) return ok("not root: mpirun needs no permission");
    if (facts.host.mpi.allowed_as_root) return ok("root, and mpirun is told that this is meant");
    return note("root: `kvgrid cluster start` tells mpirun that this is meant; your own mpirun will refuse",
                "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or use another user");
}

Finding port(const Facts& facts) {
    const HostFacts& host = facts.host;
    if (host.local_cluster_runs) return ok(fmt::format("the local cluster has {}", host.listen));
    if (!host.listen_error) return ok(fmt::format("{} is free", host.listen));
    return fail(fmt::format("cannot listen at {}: {}", host.listen, *host.listen_error),
                "end what listens there (ss -ltnp), or take another: kvgrid cluster start --listen 127.0.0.1:0");
}

Finding locked_memory(const Facts& facts) {
    const auto limit = facts.host.locked_memory_bytes;
    if (!limit) return ok("no limit");
    if (*limit >= kLockedMemoryWanted) return ok(format_bytes(*limit));
    return warn(
        fmt::format("limited to {}", format_bytes(*limit)),
        "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity); needed for RDMA and for memory shared with GPUs");
}

Finding open_files(const Facts& facts) {
    const HostFacts& host = facts.host;
    if (host.open_files >= kOpenFilesWanted) return ok(fmt::format("{}", host.open_files));
    const std::string what = fmt::format("limited to {}; each client and each peer takes one", host.open_files);
    const std::string remedy =
        host.open_files_most >= kOpenFilesWanted
            ? fmt::format("ulimit -n {}", kOpenFilesWanted)
            : fmt::format("raise the hard limit of {} in /etc/security/limits.conf (systemd: LimitNOFILE={})",
                          host.open_files_most, kOpenFilesWanted);
    return host.open_files >= kOpenFilesLeast ? warn(what, remedy) : fail(what, remedy);
}

Finding shared_memory(const Facts& facts) {
    const HostFacts& host = facts.host;
    if (!host.shared_memory_bytes)
        return warn("there is no /dev/shm", "mount one: mount -t tmpfs tmpfs /dev/shm (docker: --shm-size=1g)");
    const std::string what = fmt::format("{} of {} are free", format_bytes(host.shared_memory_free_bytes),
                                         format_bytes(*host.shared_memory_bytes));
    if (!host.shared_memory_writable)
        return warn("/dev/shm cannot be written to", "chmod 1777 /dev/shm: ranks of one host meet there");
    const bool gpus_join = facts.gpu.device_count.value_or(0) > 1;
    if (host.shared_memory_free_bytes > (gpus_join ? kSharedMemoryWantedByGpus : kSharedMemoryWanted)) return ok(what);
    return warn(what, "make it larger: mount -o remount,size=1g /dev/shm (docker: --shm-size=1g); MPI and NCCL use it");
}

Finding temporary(const Facts& facts) {
    if (!facts.host.temporary_writable)
        return fail("/tmp cannot be written to", "local clusters keep their sockets there");
    if (facts.host.temporary_free_bytes < kDiskWanted)
        return warn(fmt::format("{} are free in /tmp", format_bytes(facts.host.temporary_free_bytes)),
                    "make room: Open MPI keeps what ranks of one host share there");
    return ok(fmt::format("{} are free in /tmp", format_bytes(facts.host.temporary_free_bytes)));
}

Finding state(const Facts& facts) {
    const HostFacts& host = facts.host;
    if (!host.state_dir_writable)
        return fail(fmt::format("{} cannot be written to", host.state_dir),
                    "name another with --state-dir, or mend its owner");
    if (host.local_cluster_abandoned)
        return warn(fmt::format("the cluster of {} was killed", host.state_dir),
                    "kvgrid cluster stop removes what it left");
    if (host.state_dir_free_bytes < kDiskWanted)
        return warn(fmt::format("{} are free at {}", format_bytes(host.state_dir_free_bytes), host.state_dir),
                    "make room: a full disk under the catalogue refuses new models and sequences");
    return ok(fmt::format("{}, {} free", host.state_dir, format_bytes(host.state_dir_free_bytes)));
}

Finding memory(const Facts& facts) {
    const HostFacts& host = facts.host;
    if (!host.available_memory_bytes) return note("the kernel does not say how much is free", "look at /proc/meminfo");
    const std::string what = fmt::format("{} are free", format_bytes(*host.available_memory_bytes));
    if (host.local_cluster_runs || *host.available_memory_bytes >= host.wanted_memory_bytes) return ok(what);
    return warn(
        fmt::format("{}, and a local cluster as configured may use {}", what, format_bytes(host.wanted_memory_bytes)),
        "fewer --workers or less --memory");
}

Finding cpu(const Facts& facts) {
    if (facts.host.vector_instructions.empty())
        return warn(fmt::format("{} cores without AVX2 or NEON", facts.host.cores),
                    "attention will be slow here: use another CPU");
    return ok(fmt::format("{} cores with {}", facts.host.cores, facts.host.vector_instructions));
}

Finding clock(const Facts& facts) {
    if (facts.host.seconds_since_1970 < kYear2024)
        return warn("the clock is years behind", "set it: certificates and logs go by it");
    if (!facts.host.clock_synchronised)
        return note("the kernel does not say whether it is synchronised", "timedatectl status");
    if (*facts.host.clock_synchronised) return ok("synchronised");
    return note("not synchronised; leases and time-outs do not depend on it, the order of logs of several hosts does",
                "timedatectl set-ntp true, or run chrony");
}

Finding gpu(const Facts& facts) {
    const GpuFacts& gpu = facts.gpu;
    if (!gpu.driver && !gpu.device_nodes && !gpu.libcuda) return ok("no GPU: the CPU does the work");
    if (!gpu.driver)
        return warn("libcuda or /dev/nvidia0 is here, and no driver is loaded",
                    "modprobe nvidia, or install the driver");
    if (!gpu.device_nodes)
        return warn(fmt::format("driver {} is loaded, and there is no /dev/nvidia0", *gpu.driver),
                    "nvidia-modprobe -u (docker: --gpus all)");
    if (!gpu.libcuda)
        return warn(fmt::format("driver {} is loaded, and libcuda.so.1 cannot be", *gpu.driver),
                    "install the driver's user part (libcuda1), or in a container nvidia-container-toolkit");
    if (!gpu.device_count)
        return warn(fmt::format("driver {} is loaded, and CUDA refuses: {}", *gpu.driver, gpu.cuda_error),
                    "nvidia-smi says more; driver and libcuda must be of one version");
    if (*gpu.device_count > 0 && gpu.worker_gpus == 0)
        return warn(
            fmt::format("{} GPUs, and kvgrid-worker can use none: it was built without CUDA", *gpu.device_count),
            "build it where nvcc is; CMake says at configuration whether it found it");
    return ok(fmt::format("{} GPUs, driver {}", *gpu.device_count, *gpu.driver));
}

Finding gpu_peers(const Facts& facts) {
    const int gpus = facts.gpu.device_count.value_or(0);
    if (gpus < 2) return ok("no two GPUs");
    if (!facts.gpu.pairs_apart)
        return note("CUDA does not say which GPUs reach each other's memory", "nvidia-smi topo -p2p r");
    const std::vector<GpuPair>& apart = *facts.gpu.pairs_apart;
    if (apart.empty()) return ok(fmt::format("each of {} GPUs reaches the others' memory", gpus));
    return note(fmt::format("GPUs {} and {}{} do not reach each other's memory: what their workers join makes a detour "
                            "through the host's",
                            apart[0].first, apart[0].second,
                            apart.size() > 1 ? fmt::format(", and {} more pairs,", apart.size() - 1) : ""),
                "nvidia-smi topo -p2p r says why: often a virtual machine or an IOMMU; CUDA_VISIBLE_DEVICES chooses "
                "GPUs that do");
}

// Of a local cluster as configured.
Finding nccl_on_shared_gpus(const Facts& facts, const std::string& found) {
    const std::string rule =
        fmt::format("several workers on one GPU join over NCCL from {} on, and else over the host's memory",
                    nccl_version_text(kNcclSharesGpus));
    const int gpus = facts.gpu.worker_gpus.value_or(0);
    if (gpus == 0 || facts.host.wanted_workers <= gpus) return ok(fmt::format("{}; {}", found, rule));
    return note(fmt::format("{}, and a local cluster as configured has {} workers on {} GPUs; {}", found,
                            facts.host.wanted_workers, gpus, rule),
                fmt::format("--workers {}, or a newer libnccl2", gpus));
}

Finding nccl(const Facts& facts) {
    if (facts.gpu.device_count.value_or(0) == 0) return ok("not needed without a GPU");
    if (!facts.gpu.nccl) return warn("libnccl.so.2 cannot be loaded", "install libnccl2: GPUs join through it");
    const std::string found = "NCCL " + nccl_version_text(*facts.gpu.nccl);
    if (*facts.gpu.nccl < kNcclBuiltFor) {
        const std::string least = nccl_version_text(kNcclBuiltFor);
        return warn(fmt::format("{}, and kvgrid is built for {} or later", found, least),
                    fmt::format("install libnccl2 {} or later: GPUs join through it", least));
    }
    return *facts.gpu.nccl < kNcclSharesGpus ? nccl_on_shared_gpus(facts, found) : ok(found);
}

Finding cluster(const Facts& facts) {
    const ClusterFacts& found = facts.cluster;
    if (!found.answers && !facts.host.local_cluster_runs && found.found_by.starts_with("built in"))
        return note("none runs on this host, and none is configured", "kvgrid cluster start");
    if (!found.answers)
        return fail(fmt::format("{} ({}) does not answer: {}", found.endpoint, found.found_by, found.why_not),
                    "is the coordinator running there, and the way to it free? name another with --coordinator");
    if (!found.ready)
        return warn(fmt::format("{} answers and is not ready: {}", found.endpoint, found.why_not),
                    "kvgrid cluster status; the workers' log says why one is missing");
    return ok(fmt::format("{} ({}) is ready, with {} workers", found.endpoint, found.found_by, found.workers.size()));
}

Finding version_skew(const Facts& facts) {
    const ClusterFacts& found = facts.cluster;
    if (!found.answers) return ok(fmt::format("kvgrid {}; no cluster to compare with", facts.version));
    std::vector<std::string> others;
    if (found.version != facts.version) others.push_back("coordinator " + found.version);
    for (const ClusterFacts::Worker& worker : found.workers) {
        if (worker.version != facts.version)
            others.push_back(fmt::format("worker {} on {} {}", worker.worker, worker.host,
                                         worker.version.empty() ? "unknown" : worker.version));
    }
    if (others.empty()) return ok(fmt::format("all are {}", facts.version));
    return warn(fmt::format("this is {}, and others are not: {}", facts.version, fmt::join(others, ", ")),
                "install one version everywhere and restart what is older: until 1.0 the protocol changes between "
                "minor versions");
}

struct Check {
    const char* name;
    Finding (*judge)(const Facts&);
};

constexpr Check kChecks[] = {
    {"programs", programs},
    {"Open MPI", mpirun},
    {"MPI as root", mpi_as_root},
    {"port", port},
    {"locked memory", locked_memory},
    {"open files", open_files},
    {"/dev/shm", shared_memory},
    {"/tmp", temporary},
    {"state directory", state},
    {"memory", memory},
    {"CPU", cpu},
    {"clock", clock},
    {"GPU", gpu},
    {"GPU peers", gpu_peers},
    {"NCCL", nccl},
    {"cluster", cluster},
    {"versions", version_skew},
};

}  // namespace

const char* name_of(Verdict verdict) {
    switch (verdict) {
        case Verdict::ok:
            return "ok";
        case Verdict::note:
            return "note";
        case Verdict::warn:
            return "warn";
        case Verdict::fail:
            return "fail";
    }
    return "";
}

std::vector<Finding> findings(const Facts& facts) {
    std::vector<Finding> found;
    for (const Check& check : kChecks) {
        found.push_back(check.judge(facts));
        found.back().check = check.name;
    }
    return found;
}

bool healthy(const std::vector<Finding>& found) {
    return std::ranges::none_of(found, [](const Finding& each) { return each.verdict == Verdict::fail; });
}

}  // namespace kvgrid::cli
