#include "client/cli/local/open_mpi.h"

#include <unistd.h>

#include <cstdlib>
#include <sstream>

namespace kvgrid::cli {

Result<std::filesystem::path> find_mpirun() {
    const char* path = std::getenv("PATH");
    std::istringstream folders(path ? path : "/usr/local/bin:/usr/bin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
        const std::filesystem::path candidate = std::filesystem::path(folder.empty() ? "." : folder) / "mpirun";
        if (access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    return {Errc::not_found, "mpirun is not in PATH: install openmpi-bin (./dev setup)"};
}

std::vector<std::string> mpirun_arguments(const MpirunJob& job) {
    std::vector<std::string> arguments{job.mpirun, "-np", std::to_string(job.rank_count)};
    for (const char* option : {"--oversubscribe", "--bind-to", "none", "--enable-recovery"})
        arguments.push_back(option);
    const std::pair<const char*, std::string> parameters[] = {
        {"plm", "isolated"},  // this host only: no ssh is looked for
        {"btl", "self,vader,tcp"},
        {"btl_vader_single_copy_mechanism", "none"},     // containers often forbid it
        {"btl_vader_backing_directory", job.temporary},  // not /dev/shm: there they outlive a killed mpirun
        {"btl_tcp_if_include", "lo"},
        {"oob_tcp_if_include", "lo"},
    };
    for (const auto& [name, value] : parameters) arguments.insert(arguments.end(), {"--mca", name, value});
    arguments.insert(arguments.end(), job.program.begin(), job.program.end());
    return arguments;
}

std::map<std::string, std::string> mpirun_environment(const MpirunJob& job, bool as_root) {
    std::map<std::string, std::string> environment{{"TMPDIR", job.temporary}};
    if (as_root) {
        environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1";
        environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1";
    }
    return environment;
}

}  // namespace kvgrid::cli
