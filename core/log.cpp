#include "core/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace kvgrid {

namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
    switch (level) {
        case LogLevel::debug:
            return spdlog::level::debug;
        case LogLevel::info:
            return spdlog::level::info;
        case LogLevel::warn:
            return spdlog::level::warn;
        case LogLevel::error:
            return spdlog::level::err;
    }
    return spdlog::level::err;
}

std::shared_ptr<spdlog::logger> make_logger(const std::string& process, LogLevel lowest) {
    auto logger = std::make_shared<spdlog::logger>(process, std::make_shared<spdlog::sinks::stderr_sink_mt>());
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n: %v", spdlog::pattern_time_type::utc);
    logger->set_level(spdlog_level(lowest));
    return logger;
}

// The one object that belongs to the process and not to whoever constructed it: every folder writes lines.
std::shared_ptr<spdlog::logger>& process_logger() {
    static std::shared_ptr<spdlog::logger> logger = make_logger("kvgrid", LogLevel::info);
    return logger;
}

// Text from outside must not be able to forge a line or steer a terminal.
std::string on_one_line(std::string_view text) {
    constexpr char kHexDigits[] = "0123456789abcdef";
    std::string line;
    line.reserve(text.size());
    for (const char character : text) {
        const auto byte = static_cast<unsigned char>(character);
        if (byte == '\n') {
            line += "\\n";
        } else if (byte < 0x20 || byte == 0x7f) {
            line += "\\x";
            line += kHexDigits[byte >> 4];
            line += kHexDigits[byte & 15];
        } else {
            line += character;
        }
    }
    return line;
}

}  // namespace

void init_log(const std::string& process, LogLevel lowest) {
    process_logger() = make_logger(on_one_line(process), lowest);
}

LogLevel parse_log_level(std::string_view name, LogLevel otherwise) {
    if (name == "debug") return LogLevel::debug;
    if (name == "info") return LogLevel::info;
    if (name == "warn" || name == "warning") return LogLevel::warn;
    if (name == "error") return LogLevel::error;
    return otherwise;
}

void log(LogLevel level, std::string_view line) {
    spdlog::logger& logger = *process_logger();
    if (!logger.should_log(spdlog_level(level))) return;
    logger.log(spdlog_level(level), spdlog::string_view_t(on_one_line(line)));
}

}  // namespace kvgrid
