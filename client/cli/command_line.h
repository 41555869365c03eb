#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "client/cli/exit_code.h"
#include "core/result.h"

namespace kvgrid::cli {

// What all commands share while the program runs.
//
//   Output    data on standard output; progress and errors on standard error.
//   Commands  `kvgrid NOUN VERB`, or one word where there is only one thing to do. Each has a file of its own with one function that
//             registers it; main.cpp calls them all.
struct CommandLine {
    CLI::App app{"A KV cache over many machines, with attention where the cache lies."};
    bool quiet = false;
    ExitCode exit_code = ExitCode::done;

    // The subcommand for a noun, made when the first of its verbs asks for it.
    CLI::App& noun(const std::string& name, const std::string& description);
    // What runs when `command` was chosen.
    void on(CLI::App& command, std::function<ExitCode()> run);
};

void add_demo(CommandLine& line);
void add_status(CommandLine& line);
void add_trace_replay(CommandLine& line);
void add_version(CommandLine& line);

// Says the error on standard error, and what it makes of the exit code.
ExitCode report(const Error& error);

}  // namespace kvgrid::cli
