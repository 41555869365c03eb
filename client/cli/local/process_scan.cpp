#include "client/cli/local/process_scan.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "core/result.h"

namespace kvgrid::cli {

namespace {

constexpr std::size_t kMarkBytesMin = 12;

}  // namespace

std::vector<pid_t> processes_naming(const std::string& text) {
    std::vector<pid_t> found;
    std::error_code ignored;  // processes come and go while this looks
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
        const std::string name = entry.path().filename();
        pid_t process_id = 0;
        const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), process_id);
        if (error != std::errc{} || end != name.data() + name.size() || process_id == getpid()) continue;
        std::ifstream file(entry.path() / "cmdline", std::ios::binary);
        const std::string command_line{std::istreambuf_iterator<char>(file), {}};
        if (command_line.find(text) != std::string::npos) found.push_back(process_id);
    }
    return found;
}

std::vector<pid_t> kill_processes_naming(const std::string& text, Deadline deadline) {
    if (!text.starts_with('/') || text.size() < kMarkBytesMin) fatal("'" + text + "' may be in anyone's command line");
    for (;;) {
        std::vector<pid_t> left = processes_naming(text);
        if (left.empty() || std::chrono::steady_clock::now() >= deadline) return left;
        for (const pid_t process_id : left) kill(process_id, SIGKILL);
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}

}  // namespace kvgrid::cli
