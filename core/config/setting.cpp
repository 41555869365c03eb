#include "core/config/setting.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "core/units.h"

namespace kvgrid {

namespace {

std::optional<std::int64_t> whole_number(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

}  // namespace

Status check_value(const Setting& setting, std::string_view value) {
    const auto refuse = [&](const std::string& wanted) {
        return Status{Errc::invalid_argument, fmt::format("{} is \"{}\": {}", setting.name, value, wanted)};
    };
    switch (setting.kind) {
        case SettingKind::text:
            return {};
        case SettingKind::list:
            return value.empty() ? refuse("at least one is needed") : Status();
        case SettingKind::boolean:
            return value == "true" || value == "false" ? Status() : refuse("must be true or false");
        case SettingKind::number: {
            const auto number = whole_number(value);
            if (number && *number >= setting.min && *number <= setting.max) return {};
            return refuse(fmt::format("must be a whole number from {} to {}", setting.min, setting.max));
        }
        case SettingKind::size: {
            if (value.empty() && setting.default_value.empty()) return {};
            const auto bytes = parse_bytes(value);
            return bytes ? Status()
                         : Status{Errc::invalid_argument, fmt::format("{}: {}", setting.name, bytes.error().message)};
        }
        case SettingKind::log_level:
            for (const std::string_view level : {"debug", "info", "warn", "error"}) {
                if (value == level) return {};
            }
            return refuse("must be debug, info, warn or error");
    }
    return {};
}

}  // namespace kvgrid
