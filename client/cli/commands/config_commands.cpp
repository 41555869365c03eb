#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "client/cli/command_line.h"

namespace kvgrid::cli {

namespace {

void print_text(const Config& config) {
    std::string_view section;
    for (const Setting& setting : settings()) {
        if (setting.section() != section) fmt::print("[{}]\n", section = setting.section());
        const SettingValue& value = config.value(setting.name);
        fmt::print(
            "  {:<22} {:<28} {}\n", setting.key(), value.text.empty() ? "-" : value.text,
            value.where.empty() ? name_of(value.origin) : fmt::format("{} {}", name_of(value.origin), value.where));
    }
}

nlohmann::json config_json(const Config& config) {
    nlohmann::json list = nlohmann::json::array();
    for (const Setting& setting : settings()) {
        const SettingValue& value = config.value(setting.name);
        list.push_back({{"name", setting.name},
                        {"value", value.text},
                        {"origin", name_of(value.origin)},
                        {"where", value.where},
                        {"environment", setting.environment},
                        {"flag", setting.flag}});
    }
    return {{"file", config.file() ? config.file()->string() : ""}, {"settings", std::move(list)}};
}

ExitCode show(const CommandLine& line) {
    if (line.output.json) {
        print_json("config.show", config_json(line.config));
        return ExitCode::done;
    }
    print_text(line.config);
    if (!line.output.quiet) {
        fmt::print(stderr, "configuration file: {}\n",
                   line.config.file() ? line.config.file()->string() : "none (see `kvgrid config example`)");
    }
    return ExitCode::done;
}

}  // namespace

void add_config(CommandLine& line) {
    CLI::App& noun = line.noun("config", "the settings of all of kvgrid's programs");
    CLI::App& showing = line.command(noun, "show", "every setting, its value in force, and where that comes from");
    line.on(showing, [&line] { return show(line); });
    CLI::App& example = line.command(noun, "example", "a configuration file to begin with: every setting, explained");
    line.on_without_config(example, [&line] {
        if (line.output.json) {
            print_json("config.example", {{"text", example_config()}});
        } else {
            fmt::print("{}", example_config());
        }
        return ExitCode::done;
    });
}

}  // namespace kvgrid::cli
