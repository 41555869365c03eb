#include "client/cli/command_line.h"

#include <fmt/format.h>

#include <sstream>
#include <utility>

#include "core/log.h"
#include "core/version.h"

namespace kvgrid::cli {

namespace {

constexpr const char* kCommonOptions = "Common options";

std::string exit_code_text() {
    std::string text = "Exit codes:";
    for (const auto& [code, meaning] : exit_codes())
        text += fmt::format("\n  {:<4} {}", static_cast<int>(code), meaning);
    return text;
}

std::string footer() {
    std::string text = exit_code_text();
    text +=
        "\n\nResults go to standard output, everything else to standard error. With --json both are JSON: one object\n"
        "with \"format\" and \"format_version\", an error as \"kvgrid.error\".\n\n";
    std::istringstream examples(kExamples);
    text += kConfigurationText + std::string("\n\nExamples:");
    for (std::string example; std::getline(examples, example);) text += "\n  " + example;
    return text;
}

}  // namespace

CommandLine::CommandLine(Result<Config> loaded)
    : config(loaded ? *loaded : Config()), config_status_(loaded ? Status() : loaded.error()) {
    app.name("kvgrid");
    app.set_version_flag("--version", std::string("kvgrid ") + kVersion);
    app.require_subcommand(1);
    app.footer(footer());
}

CLI::App& CommandLine::noun(const std::string& name, const std::string& description) {
    for (CLI::App* known : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (known->get_name() == name) return *known;
    }
    CLI::App* made = app.add_subcommand(name, description);
    made->require_subcommand(1);
    return *made;
}

CLI::App& CommandLine::command(const std::string& name, const std::string& description) {
    return command(app, name, description);
}

CLI::App& CommandLine::command(CLI::App& of, const std::string& name, const std::string& description) {
    CLI::App& made = *of.add_subcommand(name, description);
    made.footer(exit_code_text());
    made.add_flag("--json", output.json, "the result, and an error, as one JSON object")->group(kCommonOptions);
    made.add_flag("-q,--quiet", output.quiet, "no progress and no news on standard error")->group(kCommonOptions);
    made.add_flag("--no-color", output.no_color, "no colours [NO_COLOR]")->group(kCommonOptions);
    made.add_option("--config", config_file_, "the configuration file [KVGRID_CONFIG]")
        ->type_name("FILE")
        ->group(kCommonOptions);
    return made;
}

void CommandLine::on(CLI::App& command, std::function<ExitCode()> run) {
    on_without_config(command, [this, run = std::move(run)] {
        if (config_status_) return run();
        const Error& wrong = config_status_.error();
        print_error({wrong.message, name_of(wrong.code), "kvgrid config example", ExitCode::usage}, output);
        return ExitCode::usage;
    });
}

void CommandLine::on_without_config(CLI::App& command, std::function<ExitCode()> run) {
    command.callback([this, &command, run = std::move(run)] {
        settings.apply(command);
        init_log("kvgrid", output.quiet ? LogLevel::warn : LogLevel::info);
        exit_code = run();
    });
}

ExitCode CommandLine::fail(const Error& error, const std::string& next) const {
    const ExitCode code = exit_code_of(error);
    print_error({error.message, name_of(error.code), next, code}, output);
    return code;
}

}  // namespace kvgrid::cli
