#include "client/cli/local/program_beside.h"

#include <fmt/format.h>
#include <unistd.h>

namespace kvgrid::cli {

Result<std::filesystem::path> program_in(const std::filesystem::path& folder, const std::string& name) {
    if (folder.empty()) return program_beside_this(name);
    if (access((folder / name).c_str(), X_OK) == 0) return folder / name;
    return {Errc::not_found, fmt::format("{} is not in {}", name, folder.string())};
}

Result<std::filesystem::path> program_beside_this(const std::string& name) {
    std::error_code error;
    const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
    if (access((folder / name).c_str(), X_OK) == 0) return folder / name;
    return {Errc::not_found, fmt::format("{} is not in {}: build it (./dev build)", name, folder.string())};
}

}  // namespace kvgrid::cli
