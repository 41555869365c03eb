#include "core/config/config.h"

#include <fmt/format.h>

#include <charconv>

namespace kvgrid {

namespace {

namespace fs = std::filesystem;

std::optional<std::string> variable(const Environment& environment, std::string_view name) {
    const char* value = environment(std::string(name).c_str());
    if (!value || !*value) return std::nullopt;  // empty: as if it were not set
    return value;
}

}  // namespace

const char* name_of(Origin origin) {
    switch (origin) {
        case Origin::built_in:
            return "built in";
        case Origin::file:
            return "file";
        case Origin::environment:
            return "environment";
        case Origin::flag:
            return "flag";
    }
    return "";
}

std::vector<std::string> SettingValue::list() const {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin < text.size();) {
        const auto end = std::min(text.find(',', begin), text.size());
        if (end > begin) parts.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

std::int64_t SettingValue::number() const {
    std::int64_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

std::optional<fs::path> find_config_file(const Environment& environment) {
    std::vector<fs::path> places;
    if (const auto folder = variable(environment, "XDG_CONFIG_HOME")) {
        places.push_back(fs::path(*folder) / "kvgrid/kvgrid.toml");
    } else if (const auto home = variable(environment, "HOME")) {
        places.push_back(fs::path(*home) / ".config/kvgrid/kvgrid.toml");
    }
    places.emplace_back("/etc/kvgrid/kvgrid.toml");
    for (const fs::path& place : places) {
        std::error_code unreadable;  // a folder of somebody else: there is no file for us
        if (fs::exists(place, unreadable)) return place;
    }
    return std::nullopt;
}

Config::Config() {
    for (const Setting& setting : settings()) values_[std::string(setting.name)].text = setting.default_value;
}

Result<Config> Config::make(const std::optional<ConfigFile>& file, const Environment& environment) {
    Config config;
    if (file) {
        config.file_ = file->path;
        for (const auto& [name, value] : file->values) config.values_[name] = value;
    }
    for (const Setting& setting : settings()) {
        const auto value = variable(environment, setting.environment);
        if (!value) continue;
        const std::string name(setting.environment);
        if (const Status good = check_value(setting, *value); !good)
            return {Errc::invalid_argument, fmt::format("{} in the environment: {}", name, good.error().message)};
        config.values_[std::string(setting.name)] = {*value, Origin::environment, name};
    }
    return config;
}

Result<Config> Config::load(const std::string& named, const Environment& environment) {
    std::optional<fs::path> path;
    if (!named.empty()) {
        path = named;
    } else if (const auto variable_path = variable(environment, "KVGRID_CONFIG")) {
        path = *variable_path;
    } else {
        path = find_config_file(environment);
    }
    if (!path) return make(std::nullopt, environment);
    auto file = read_config_file(*path);
    if (!file) return file.error();
    return make(*file, environment);
}

const SettingValue& Config::value(std::string_view name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) fatal(fmt::format("there is no setting {}", name));
    return found->second;
}

}  // namespace kvgrid
