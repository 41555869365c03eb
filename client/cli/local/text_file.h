#pragma once

#include <filesystem>
#include <string>

namespace kvgrid::cli {

// Of a log that others may be writing. A file that is not there is empty.
std::string last_lines(const std::filesystem::path& file, int count);
bool file_has_line(const std::filesystem::path& file, const std::string& line);

}  // namespace kvgrid::cli
