#pragma once

#include <filesystem>
#include <string>

#include "core/result.h"

namespace kvgrid::cli {

// A program that was built or installed with this one, in the same folder. `not_found` where there is none.
Result<std::filesystem::path> program_beside_this(const std::string& name);

// The same in the folder given; empty: this program's.
Result<std::filesystem::path> program_in(const std::filesystem::path& folder, const std::string& name);

}  // namespace kvgrid::cli
