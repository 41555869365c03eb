// kvgrid: the command line. Exit codes: see exit_code.h.
#include <fmt/format.h>

#include <cstdlib>
#include <exception>
#include <string_view>

#include "client/cli/command_line.h"

namespace {

using namespace kvgrid;
using namespace kvgrid::cli;

// The command that was meant, as far as it was understood: "kvgrid model register".
std::string chosen(const CLI::App& app) {
    const auto subcommands = app.get_subcommands();
    return app.get_name() + (subcommands.empty() ? "" : " " + chosen(*subcommands.back()));
}

bool wants_json(int argc, char** argv) {
    for (int at = 1; at < argc; ++at) {
        if (std::string_view(argv[at]) == "--json") return true;
    }
    return false;
}

int wrong_usage(const std::string& what, const std::string& next, const OutputOptions& output) {
    print_error({what, "usage", next, ExitCode::usage}, output);
    return static_cast<int>(ExitCode::usage);
}

int run(int argc, char** argv) {
    const OutputOptions before_parsing{.json = wants_json(argc, argv)};
    CommandLine line(Config::load(config_argument(argc, argv), [](const char* name) { return std::getenv(name); }));
    add_commands(line);
    try {
        line.app.parse(argc, argv);
    } catch (const CLI::Success& help_or_version) {
        return line.app.exit(help_or_version);
    } catch (const CLI::ParseError& wrong) {
        return wrong_usage(wrong.what(), chosen(line.app) + " --help", before_parsing);
    }
    return static_cast<int>(line.exit_code);
}

}  // namespace

int main(int argc, char** argv) try { return run(argc, argv); } catch (const std::exception& defect) {
    fmt::print(stderr, "kvgrid: {}\n", defect.what());
    return static_cast<int>(kvgrid::cli::ExitCode::failed);
}
