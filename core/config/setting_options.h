#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/config/config.h"

namespace kvgrid {

// Options of a command line that are settings: help, default and check are the table's, and where the flag is not given the
// configuration's value is taken.
//
//     SettingOptions options(config);
//     options.add(app, "worker.memory", memory);
//     app.parse(argc, argv);
//     options.apply(app);   // `memory` is what is in force
//
// Its header is heavy (CLI11): for programs' main files and commands only.
class SettingOptions {
  public:
    explicit SettingOptions(const Config& config) : config_(config) {}

    // `variable` is a text, a number, a bool or (of a list) a vector of texts. Both outlive this.
    template <class T>
    CLI::Option* add(CLI::App& app, std::string_view name, T& variable);

    // What no flag of `app` said is taken from the configuration. To be called after the line was parsed.
    void apply(const CLI::App& app) const;

    // The value in force of a setting that `app` has an option for, and where it comes from.
    SettingValue in_force(const CLI::App& app, std::string_view name) const;

  private:
    struct Bound {
        const CLI::App* app;
        const Setting* setting;
        CLI::Option* option;
        std::function<void(const SettingValue&)> take;
    };
    const Setting& known(std::string_view name) const;
    void describe(CLI::Option& option, const Setting& setting) const;

    const Config& config_;
    std::vector<Bound> bound_;
};

// The file that `--config FILE` or `--config=FILE` names on a command line that was not parsed yet; empty where none does.
std::string config_argument(int argc, const char* const* argv);

// The option itself, for help and completion.
void add_config_option(CLI::App& app, std::string& variable);

template <class T>
CLI::Option* SettingOptions::add(CLI::App& app, std::string_view name, T& variable) {
    const Setting& setting = known(name);
    CLI::Option* option = nullptr;
    if constexpr (std::is_same_v<T, bool>) {
        option = app.add_flag(std::string(setting.flag), variable);
    } else {
        option = app.add_option(std::string(setting.flag), variable);
    }
    describe(*option, setting);
    bound_.push_back({&app, &setting, option, [&variable](const SettingValue& value) {
                          if constexpr (std::is_same_v<T, bool>) {
                              variable = value.boolean();
                          } else if constexpr (std::is_same_v<T, std::string>) {
                              variable = value.text;
                          } else if constexpr (std::is_integral_v<T>) {
                              if (!value.text.empty()) variable = static_cast<T>(value.number());
                          } else {
                              variable = value.list();
                          }
                      }});
    return option;
}

}  // namespace kvgrid
