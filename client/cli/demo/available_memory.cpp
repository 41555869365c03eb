#include "client/cli/demo/available_memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>

namespace kvgrid::cli {

namespace {

constexpr const char* kCgroup = "/sys/fs/cgroup/";  // version 2, as a container sees its own

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::optional<std::uint64_t> leading_number(std::string_view text) {
    const auto first = text.find_first_not_of(' ');
    if (first == text.npos) return std::nullopt;
    text.remove_prefix(first);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} ? std::optional(value) : std::nullopt;
}

// Nothing where there is no limit.
std::optional<std::uint64_t> left_in_cgroup() {
    const auto limit = leading_number(text_of(std::string(kCgroup) + "memory.max"));
    const auto used = leading_number(text_of(std::string(kCgroup) + "memory.current"));
    if (!limit || !used) return std::nullopt;
    return *limit - std::min(*limit, *used);
}

}  // namespace

std::optional<std::uint64_t> mem_available_in(std::string_view meminfo) {
    constexpr std::string_view kField = "MemAvailable:";
    const auto at = meminfo.find(kField);
    if (at == meminfo.npos) return std::nullopt;
    const auto kibibytes = leading_number(meminfo.substr(at + kField.size()));
    return kibibytes ? std::optional(*kibibytes << 10) : std::nullopt;
}

std::optional<std::uint64_t> available_memory_bytes() {
    const auto of_host = mem_available_in(text_of("/proc/meminfo"));
    const auto of_cgroup = left_in_cgroup();
    if (!of_host || !of_cgroup) return of_host ? of_host : of_cgroup;
    return std::min(*of_host, *of_cgroup);
}

}  // namespace kvgrid::cli
