#pragma once

#include <string>

#include "client/cli/doctor/facts.h"

namespace kvgrid::cli {

// What a local cluster would be started with.
struct LocalPlan {
    std::string name;
    std::string state_dir;
    std::string listen;
    int workers = 0;
    std::uint64_t memory_bytes_per_worker = 0;
};

// Looks, and changes nothing. Within about two seconds: `mpirun --version` is the only program that is run.
HostFacts gather_host(const LocalPlan& plan);
// Loads libcuda and libnccl if they are there; nothing of kvgrid is linked with them.
GpuFacts gather_gpu();

// "mpirun (Open MPI) 4.1.4" -> "4.1.4".
std::optional<std::string> open_mpi_version(const std::string& text);

}  // namespace kvgrid::cli
