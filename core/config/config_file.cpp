#include <fmt/format.h>
#include <toml++/toml.h>

#include <fstream>
#include <sstream>

#include "core/config/config.h"

namespace kvgrid {

namespace {

Error error_at(const std::filesystem::path& path, const toml::source_region& region, const std::string& what) {
    return {Errc::invalid_argument, fmt::format("{}:{}: {}", path.string(), region.begin.line, what)};
}

// As the environment would have it.
Result<std::string> text_of(const toml::node& node, const Setting& setting) {
    const auto refuse = [&] {
        return Result<std::string>(Errc::invalid_argument, fmt::format("{} may not be a {}", setting.name, [&] {
                                       std::ostringstream name;
                                       name << node.type();
                                       return name.str();
                                   }()));
    };
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* number = node.as_integer()) return std::to_string(number->get());
    if (const auto* boolean = node.as_boolean()) return std::string(boolean->get() ? "true" : "false");
    const auto* array = node.as_array();
    if (!array || setting.kind != SettingKind::list) return refuse();
    std::string joined;
    for (const toml::node& each : *array) {
        if (!each.is_string()) return refuse();
        joined += (joined.empty() ? "" : ",") + each.as_string()->get();
    }
    return joined;
}

Status take_section(const toml::key& section, const toml::table& keys, ConfigFile& into) {
    for (const auto& [key, node] : keys) {
        const std::string name = fmt::format("{}.{}", section.str(), key.str());
        const Setting* setting = find_setting(name);
        if (!setting)
            return error_at(into.path, key.source(),
                            fmt::format("there is no setting {}; `kvgrid config example` prints all of them", name));
        const auto text = text_of(node, *setting);
        if (!text) return error_at(into.path, node.source(), text.error().message);
        if (const Status good = check_value(*setting, *text); !good)
            return error_at(into.path, node.source(), good.error().message);
        into.values[name] = {*text, Origin::file, fmt::format("{}:{}", into.path.string(), key.source().begin.line)};
    }
    return {};
}

}  // namespace

Result<ConfigFile> read_config_file(const std::filesystem::path& path) {
    std::ifstream stream(path);
    std::ostringstream text;
    if (!(text << stream.rdbuf())) {
        return {Errc::not_found, fmt::format("cannot read the configuration file {}: name another with --config, or "
                                             "`kvgrid config example` prints one to begin with",
                                             path.string())};
    }
    ConfigFile file{.path = path, .values = {}};
    try {
        for (const auto& [section, node] : toml::parse(text.str(), path.string())) {
            const toml::table* keys = node.as_table();
            if (!keys)
                return error_at(
                    path, section.source(),
                    fmt::format("{} stands in no section; write it under one, like [worker]", section.str()));
            if (const Status taken = take_section(section, *keys, file); !taken) return taken.error();
        }
    } catch (const toml::parse_error& wrong) {
        return error_at(path, wrong.source(), std::string(wrong.description()));
    }
    return file;
}

}  // namespace kvgrid
