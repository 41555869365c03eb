#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "client/cli/command_line.h"
#include "core/version.h"

namespace kvgrid::cli {

void add_version(CommandLine& line) {
    CLI::App& command = line.command("version", "the version of this program");
    line.on_without_config(command, [&line] {
        if (line.output.json) {
            print_json("version", {{"version", kVersion}});
        } else {
            fmt::print("kvgrid {}\n", kVersion);
        }
        return ExitCode::done;
    });
}

}  // namespace kvgrid::cli
