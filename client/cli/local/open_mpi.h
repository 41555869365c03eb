#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"

namespace kvgrid::cli {

// How Open MPI 4.1 is asked to start the ranks of one host. A rank's death leaves the others running (--enable-recovery), any
// number of ranks may share a core, and nothing listens on an address that other hosts reach.

// Where mpirun is. not_found: nowhere in PATH, and what to do about it.
Result<std::filesystem::path> find_mpirun();

struct MpirunJob {
    std::filesystem::path mpirun;
    int rank_count = 0;
    std::vector<std::string> program;  // with its arguments
    std::filesystem::path temporary;   // for files of Open MPI, sockets among them: a short path
};

// [0] is mpirun.
std::vector<std::string> mpirun_arguments(const MpirunJob& job);

// As root, Open MPI wants to be told twice that this is meant.
std::map<std::string, std::string> mpirun_environment(const MpirunJob& job, bool as_root);

}  // namespace kvgrid::cli
