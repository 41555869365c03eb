#pragma once

#include <string>
#include <string_view>

namespace kvgrid {

enum class LogLevel { debug, info, warn, error };

// Names the process in every line ("worker 2") and sets the lowest level that is printed. Lines go to stderr:
// "2025-01-31T12:00:00.000Z info worker 2: text". To be called before other threads log; until then the process is
// "kvgrid" and the lowest level is info.
void init_log(const std::string& process, LogLevel lowest);

// "debug", "info", "warn" (or "warning"), "error"; `otherwise` for anything else.
LogLevel parse_log_level(std::string_view name, LogLevel otherwise);

// Any thread. Control characters are written as escapes, so that one call is one line.
void log(LogLevel level, std::string_view line);
inline void log_debug(std::string_view line) {
    log(LogLevel::debug, line);
}
inline void log_info(std::string_view line) {
    log(LogLevel::info, line);
}
inline void log_warn(std::string_view line) {
    log(LogLevel::warn, line);
}
inline void log_error(std::string_view line) {
    log(LogLevel::error, line);
}

}  // namespace kvgrid
