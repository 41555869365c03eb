#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config/setting.h"

namespace kvgrid {

enum class Origin { built_in, file, environment, flag };
const char* name_of(Origin origin);  // "built in", "file", "environment", "flag"

struct SettingValue {
    std::string text;  // a list is joined by commas; empty where there is no value
    Origin origin = Origin::built_in;
    std::string where;  // "/etc/kvgrid/kvgrid.toml:12", "KVGRID_COORDINATOR"; empty for what is built in

    std::vector<std::string> list() const;
    std::int64_t number() const;  // of a number setting that has a value
    bool boolean() const { return text == "true"; }
};

// What one configuration file says: by the setting's name, with the line.
struct ConfigFile {
    std::filesystem::path path;
    std::map<std::string, SettingValue, std::less<>> values;
};

// A TOML file with a table for each section. `not_found`: it cannot be read. `invalid_argument`, with file and line: it is no TOML, or has
// an unknown key or a value that is none of the setting.
Result<ConfigFile> read_config_file(const std::filesystem::path& path);

using Environment = std::function<const char*(const char* name)>;  // std::getenv, as a rule

// The file that is read where none is named: $XDG_CONFIG_HOME/kvgrid/kvgrid.toml (~/.config where that is not set), else
// /etc/kvgrid/kvgrid.toml; nothing where there is neither. One file only: what is in force can be read off in one place.
std::optional<std::filesystem::path> find_config_file(const Environment& environment);

// The value of every setting and where it comes from: built in, then the file, then the environment; the later wins. Flags win over
// all of them, and are the command line's own (setting_options.h).
class Config {
  public:
    // `named`: the file of --config, or empty. KVGRID_CONFIG is next, then find_config_file. A named file has to be there.
    static Result<Config> load(const std::string& named, const Environment& environment);
    static Result<Config> make(const std::optional<ConfigFile>& file, const Environment& environment);
    // What is built in.
    Config();

    const SettingValue& value(std::string_view name) const;  // Fatal for a name that is none
    const std::optional<std::filesystem::path>& file() const { return file_; }

  private:
    std::map<std::string, SettingValue, std::less<>> values_;
    std::optional<std::filesystem::path> file_;
};

// The file with every setting in it, commented out and explained.
std::string example_config();

}  // namespace kvgrid
