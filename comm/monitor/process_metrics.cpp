#include "comm/monitor/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "comm/monitor/families.h"
#include "core/build_info.h"
#include "core/version.h"

namespace kvgrid::comm {

namespace {

// Fields of /proc/self/stat (proc(5)), from the third one: the second, the program's name, may have spaces.
struct ProcessState {
    double cpu_seconds = 0;
    double thread_count = 0;
    double start_seconds = 0;  // after the system's start
    double virtual_bytes = 0;
    double resident_bytes = 0;
};

ProcessState read_state() {
    std::ifstream file("/proc/self/stat");
    std::string text(std::istreambuf_iterator<char>(file), {});
    std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 2)));
    std::vector<std::string> values(std::istream_iterator<std::string>(fields), {});
    const auto field = [&](std::size_t number) {
        return number - 3 < values.size() ? std::strtod(values[number - 3].c_str(), nullptr) : 0;
    };
    const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    return {.cpu_seconds = (field(14) + field(15)) / ticks,
            .thread_count = field(20),
            .start_seconds = field(22) / ticks,
            .virtual_bytes = field(23),
            .resident_bytes = field(24) * static_cast<double>(sysconf(_SC_PAGESIZE))};
}

double system_start_seconds() {
    std::ifstream file("/proc/stat");
    for (std::string name; file >> name;) {
        double value = 0;
        if (name == "btime" && file >> value) return value;
        file.ignore(1 << 16, '\n');
    }
    return 0;
}

double open_descriptor_count() {
    std::error_code error;
    const std::filesystem::directory_iterator descriptors("/proc/self/fd", error);
    return error ? 0 : static_cast<double>(std::distance(begin(descriptors), end(descriptors))) - 1;  // not this one
}

double descriptor_limit() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    return static_cast<double>(limit.rlim_cur);
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessMetrics::Collect() const {
    const ProcessState state = read_state();
    return {
        gauge_family("kvgrid_build_info", "1, with what is running in the labels.")
            .add(1, {{"program", program_},
                     {"version", kVersion},
                     {"commit", build_commit()},
                     {"compiler", build_compiler()}}),
        counter_family("process_cpu_seconds_total", "User and system CPU time of the process.").add(state.cpu_seconds),
        gauge_family("process_resident_memory_bytes", "Resident memory of the process.").add(state.resident_bytes),
        gauge_family("process_virtual_memory_bytes", "Virtual memory of the process.").add(state.virtual_bytes),
        gauge_family("process_start_time_seconds", "Start of the process, in seconds since the Unix epoch.")
            .add(system_start_seconds() + state.start_seconds),
        gauge_family("process_threads", "Threads of the process.").add(state.thread_count),
        gauge_family("process_open_fds", "Open file descriptors of the process.").add(open_descriptor_count()),
        gauge_family("process_max_fds", "Limit on the process' open file descriptors.").add(descriptor_limit()),
    };
}

}  // namespace kvgrid::comm
