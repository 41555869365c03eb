#include "client/cli/local/text_file.h"

#include <fmt/format.h>

#include <deque>
#include <fstream>
#include <sstream>

namespace kvgrid::cli {

Result<std::string> whole_text(const std::filesystem::path& file) {
    std::ifstream stream(file);
    std::ostringstream text;
    if (text << stream.rdbuf()) return text.str();
    return {Errc::not_found, fmt::format("cannot read {}: is it there, and no folder?", file.string())};
}

std::string last_lines(const std::filesystem::path& file, int count) {
    std::ifstream stream(file);
    std::deque<std::string> lines;
    for (std::string line; std::getline(stream, line);) {
        lines.push_back(line);
        if (static_cast<int>(lines.size()) > count) lines.pop_front();
    }
    std::string text;
    for (const std::string& line : lines) text += (text.empty() ? "  " : "\n  ") + line;
    return text;
}

std::vector<std::string> lines_after(const std::filesystem::path& file, const std::string& beginning) {
    std::ifstream stream(file);
    std::vector<std::string> found;
    for (std::string line; std::getline(stream, line);) {
        if (line.starts_with(beginning)) found.push_back(line.substr(beginning.size()));
    }
    return found;
}

bool file_has_line(const std::filesystem::path& file, const std::string& wanted) {
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) {
        if (line == wanted) return true;
    }
    return false;
}

}  // namespace kvgrid::cli
