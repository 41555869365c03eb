#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"

namespace kvgrid::cli {

// All of a file that is small. `not_found`: it cannot be read.
Result<std::string> whole_text(const std::filesystem::path& file);

// Of a log that others may be writing. A file that is not there is empty.
std::string last_lines(const std::filesystem::path& file, int count);
// What follows in the lines that begin so.
std::vector<std::string> lines_after(const std::filesystem::path& file, const std::string& beginning);
bool file_has_line(const std::filesystem::path& file, const std::string& line);

}  // namespace kvgrid::cli
