#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvgrid::cli {

// What `kvgrid doctor` finds out about this host and the cluster; judging it is findings.h.
struct ClusterFacts {
    std::string endpoint;
    std::string found_by;
    bool answers = false;
    std::string why_not;  // it does not answer, or is not ready
    bool ready = false;
    std::string version;
    struct Worker {
        std::uint64_t worker = 0;
        std::string host;
        bool alive = false;
        std::string version;
    };
    std::vector<Worker> workers;
};

struct GpuPair {
    int first, second;
};

struct GpuFacts {
    bool device_nodes = false;          // /dev/nvidia0
    std::optional<std::string> driver;  // of the kernel module; nothing: it is not loaded
    bool libcuda = false;               // can be loaded
    std::optional<int> device_count;    // as CUDA counts them; nothing: it refuses
    std::string cuda_error;             // why
    std::optional<int> worker_gpus;     // that kvgrid-worker can use; asked only where CUDA counts some
    std::optional<int> nccl;            // its version, 22809 is 2.28.9; nothing: it cannot be loaded
    // Of CUDA's, those of which one does not reach the other's memory by itself; nothing: CUDA does not say.
    std::optional<std::vector<GpuPair>> pairs_apart;
};

struct MpiFacts {
    std::optional<std::string> mpirun;   // its path
    std::optional<std::string> version;  // "4.1.4"
    bool allowed_as_root = false;        // both variables are set
};

struct HostFacts {
    bool root = false;
    std::vector<std::string> missing_programs;  // that belong beside this one
    MpiFacts mpi;
    std::string listen;                       // where a local cluster would listen
    std::optional<std::string> listen_error;  // why that is not possible; nothing: it is
    bool local_cluster_runs = false;
    bool local_cluster_abandoned = false;
    std::string state_dir;
    bool state_dir_writable = true;
    std::uint64_t state_dir_free_bytes = 0;
    std::optional<std::uint64_t> locked_memory_bytes;   // nothing: no limit
    std::uint64_t open_files = 0, open_files_most = 0;  // in force, and as far as the user may raise it
    std::optional<std::uint64_t> shared_memory_bytes;   // size of /dev/shm; nothing: there is none
    std::uint64_t shared_memory_free_bytes = 0;
    bool shared_memory_writable = true;
    bool temporary_writable = true;  // /tmp
    std::uint64_t temporary_free_bytes = 0;
    std::optional<std::uint64_t> available_memory_bytes;
    int wanted_workers = 0;                 // of a local cluster as configured
    std::uint64_t wanted_memory_bytes = 0;  // by them
    int cores = 0;
    std::string vector_instructions;         // "AVX-512", "AVX2", "NEON", or empty: none that the kernels use
    std::optional<bool> clock_synchronised;  // nothing: the kernel does not say
    std::int64_t seconds_since_1970 = 0;
};

struct Facts {
    std::string version;  // of this program
    HostFacts host;
    GpuFacts gpu;
    ClusterFacts cluster;
};

}  // namespace kvgrid::cli
