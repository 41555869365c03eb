#include "client/cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

namespace kvgrid::cli {

namespace {

nlohmann::json versioned(const char* name, nlohmann::json object, int format_version) {
    object["format"] = fmt::format("kvgrid.{}", name);
    object["format_version"] = format_version;
    return object;
}

}  // namespace

bool may_color(const OutputOptions& options) {
    if (options.no_color || !isatty(STDOUT_FILENO)) return false;
    const char* refused = std::getenv("NO_COLOR");
    const char* terminal = std::getenv("TERM");
    return !(refused && *refused) && terminal && std::string_view(terminal) != "dumb";
}

void print_json(const char* name, nlohmann::json object, int format_version) {
    fmt::print("{}\n", versioned(name, std::move(object), format_version).dump(2));
}

void print_error(const Failure& failure, const OutputOptions& options) {
    if (options.json) {
        const nlohmann::json object{{"code", failure.code},
                                    {"message", failure.message},
                                    {"next", failure.next},
                                    {"exit_code", static_cast<int>(failure.exit_code)}};
        fmt::print(stderr, "{}\n", versioned("error", object, 1).dump());
        return;
    }
    fmt::print(stderr, "kvgrid: {}: {}\n", failure.code, failure.message);
    if (!failure.next.empty()) fmt::print(stderr, "try: {}\n", failure.next);
}

}  // namespace kvgrid::cli
