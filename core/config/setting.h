#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/result.h"

namespace kvgrid {

enum class SettingKind {
    text,
    number,     // whole, from min to max
    boolean,    // "true" or "false"
    size,       // of memory: parse_bytes
    list,       // of texts; joined by commas where a single text is wanted
    log_level,  // debug, info, warn, error
};

// One thing that a user can set, for one or several of kvgrid's programs. The table of all of them is settings.cpp; the commented
// file, the environment's names, the flags' help and `kvgrid config show` are made from it.
struct Setting {
    std::string_view name;           // "worker.memory": section and key of the file
    std::string_view environment;    // "KVGRID_WORKER_MEMORY"
    std::string_view flag;           // "--memory", of the programs that take it
    std::string_view default_value;  // empty: there is none
    SettingKind kind;
    std::string_view doc;  // one line, without a full stop
    std::int64_t min = 0, max = 0;

    std::string_view section() const { return name.substr(0, name.find('.')); }
    std::string_view key() const { return name.substr(name.find('.') + 1); }
};

// By section, in the order in which the file has them.
std::span<const Setting> settings();

// Null: there is none of this name.
const Setting* find_setting(std::string_view name);

// Whether a text is a value of the setting: `invalid_argument` says what is wanted instead.
Status check_value(const Setting& setting, std::string_view value);

}  // namespace kvgrid
