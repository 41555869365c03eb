#include <fmt/format.h>

#include "core/config/config.h"

namespace kvgrid {

namespace {

std::string as_toml(const Setting& setting) {
    const std::string text(setting.default_value);
    switch (setting.kind) {
        case SettingKind::number:
            return text.empty() ? fmt::format("{}", setting.min) : text;
        case SettingKind::boolean:
            return text;
        case SettingKind::list:
            return fmt::format("[\"{}\"]", text);
        case SettingKind::text:
        case SettingKind::size:
        case SettingKind::log_level:
            break;
    }
    return fmt::format("\"{}\"", text);
}

}  // namespace

std::string example_config() {
    std::string text =
        "# The configuration of kvgrid's programs. It is looked for at --config FILE, $KVGRID_CONFIG,\n"
        "# ~/.config/kvgrid/kvgrid.toml and /etc/kvgrid/kvgrid.toml; the first one that is there is read.\n"
        "# The environment wins over this file, and flags win over both: `kvgrid config show` tells what is in force.\n"
        "# What stands here commented out is what holds without it.\n";
    std::string_view section;
    for (const Setting& setting : settings()) {
        if (setting.section() != section) text += fmt::format("\n[{}]\n", section = setting.section());
        text += fmt::format("# {} ({}, {})\n# {} = {}\n", setting.doc, setting.flag, setting.environment, setting.key(),
                            as_toml(setting));
    }
    return text;
}

}  // namespace kvgrid
