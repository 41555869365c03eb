#include "core/config/setting_options.h"

#include <fmt/format.h>

namespace kvgrid {

namespace {

const char* type_name(const Setting& setting) {
    switch (setting.kind) {
        case SettingKind::number:
            return "NUMBER";
        case SettingKind::size:
            return "SIZE";
        case SettingKind::log_level:
            return "LEVEL";
        case SettingKind::text:
        case SettingKind::list:
        case SettingKind::boolean:
            break;
    }
    return "TEXT";
}

}  // namespace

const Setting& SettingOptions::known(std::string_view name) const {
    const Setting* setting = find_setting(name);
    if (!setting) fatal(fmt::format("there is no setting {}", name));
    return *setting;
}

void SettingOptions::describe(CLI::Option& option, const Setting& setting) const {
    option.description(fmt::format("{} [{}]", setting.doc, setting.environment));
    if (setting.kind == SettingKind::boolean) return;
    option.type_name(type_name(setting));
    option.default_str(std::string(setting.default_value));
    option.check(
        [&setting](const std::string& text) {
            const Status good = check_value(setting, text);
            return good ? std::string() : good.error().message;
        },
        "");
}

void SettingOptions::apply(const CLI::App& app) const {
    for (const Bound& each : bound_) {
        if (each.app == &app && each.option->count() == 0) each.take(config_.value(each.setting->name));
    }
}

SettingValue SettingOptions::in_force(const CLI::App& app, std::string_view name) const {
    for (const Bound& each : bound_) {
        if (each.app != &app || each.setting->name != name || each.option->count() == 0) continue;
        return {fmt::format("{}", fmt::join(each.option->results(), ",")), Origin::flag,
                std::string(each.setting->flag)};
    }
    return config_.value(name);
}

std::string config_argument(int argc, const char* const* argv) {
    constexpr std::string_view kFlag = "--config";
    for (int at = 1; at < argc; ++at) {
        const std::string_view argument = argv[at];
        if (argument == "--") break;
        if (argument == kFlag && at + 1 < argc) return argv[at + 1];
        if (argument.starts_with("--config=")) return std::string(argument.substr(kFlag.size() + 1));
    }
    return "";
}

void add_config_option(CLI::App& app, std::string& variable) {
    app.add_option("--config", variable, "the configuration file [KVGRID_CONFIG]")->type_name("FILE");
}

}  // namespace kvgrid
