#include "client/cli/command_line.h"

#include <fmt/format.h>

#include <utility>

#include "core/log.h"

namespace kvgrid::cli {

CLI::App& CommandLine::noun(const std::string& name, const std::string& description) {
    for (CLI::App* known : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (known->get_name() == name) return *known;
    }
    CLI::App* made = app.add_subcommand(name, description);
    made->require_subcommand(1);
    return *made;
}

void CommandLine::on(CLI::App& command, std::function<ExitCode()> run) {
    command.callback([this, run = std::move(run)] {
        init_log("kvgrid", quiet ? LogLevel::warn : LogLevel::info);
        exit_code = run();
    });
}

ExitCode report(const Error& error) {
    fmt::print(stderr, "kvgrid: {}\n", error.to_string());
    return exit_code_of(error);
}

}  // namespace kvgrid::cli
