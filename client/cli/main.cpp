// kvgrid: the command line. Exit codes: see exit_code.h.
#include <fmt/format.h>

#include <exception>

#include "client/cli/command_line.h"

namespace {

using namespace kvgrid;
using namespace kvgrid::cli;

void add_commands(CommandLine& line) {
    line.app.require_subcommand(1);
    line.app.add_flag("-q,--quiet", line.quiet, "no progress and no news on standard error");
    line.app.footer(
        "Exit codes: 0 done, 1 failed, 2 usage, 3 the cluster cannot be reached, 4 refused, 130 interrupted.\n"
        "Examples:\n"
        "  kvgrid demo\n"
        "  kvgrid trace replay TRACE.safetensors --local 4\n"
        "  kvgrid status --coordinator 127.0.0.1:7070");
    add_demo(line);
    add_trace_replay(line);
    add_status(line);
    add_version(line);
}

}  // namespace

int main(int argc, char** argv) try {
    CommandLine line;
    add_commands(line);
    try {
        line.app.parse(argc, argv);
    } catch (const CLI::ParseError& wrong) {
        return line.app.exit(wrong) == 0 ? 0 : static_cast<int>(ExitCode::usage);
    }
    return static_cast<int>(line.exit_code);
} catch (const std::exception& defect) {
    fmt::print(stderr, "kvgrid: {}\n", defect.what());
    return static_cast<int>(kvgrid::cli::ExitCode::failed);
}
