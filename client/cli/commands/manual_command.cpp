#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "client/cli/command_line.h"
#include "client/cli/help/manual.h"
#include "client/cli/help/read_command_tree.h"
#include "core/version.h"

namespace kvgrid::cli {

void add_manual(CommandLine& line) {
    CLI::App& command = line.command("man", "the manual page kvgrid(1): `kvgrid man | man -l -`");
    line.on_without_config(command, [&line] {
        const std::string page = manual_page(read_command_tree(line.app), {.version = kVersion,
                                                                           .exit_codes = exit_codes(),
                                                                           .configuration = kConfigurationText,
                                                                           .examples = kExamples});
        if (line.output.json) {
            print_json("man", {{"page", page}});
        } else {
            fmt::print("{}", page);
        }
        return ExitCode::done;
    });
}

}  // namespace kvgrid::cli
