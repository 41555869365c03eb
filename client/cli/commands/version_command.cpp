#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "client/cli/command_line.h"
#include "core/version.h"

namespace kvgrid::cli {

void add_version(CommandLine& line) {
    CLI::App& command = *line.app.add_subcommand("version", "the version of this program");
    auto json = std::make_shared<bool>(false);
    command.add_flag("--json", *json, "as JSON");
    line.on(command, [json] {
        if (*json) {
            fmt::print(
                "{}\n",
                nlohmann::json{{"format", "kvgrid.version"}, {"format_version", 1}, {"version", kVersion}}.dump());
        } else {
            fmt::print("kvgrid {}\n", kVersion);
        }
        return ExitCode::done;
    });
}

}  // namespace kvgrid::cli
