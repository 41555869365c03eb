#include "client/cli/local/text_file.h"

#include <deque>
#include <fstream>

namespace kvgrid::cli {

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

bool file_has_line(const std::filesystem::path& file, const std::string& wanted) {
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) {
        if (line == wanted) return true;
    }
    return false;
}

}  // namespace kvgrid::cli
