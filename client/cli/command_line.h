#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "core/config/setting_options.h"

namespace kvgrid::cli {

// For the help and the manual.
inline constexpr const char* kConfigurationText =
    "Settings come from flags, else the environment, else the configuration file: the file that --config or "
    "KVGRID_CONFIG\n"
    "names, else ~/.config/kvgrid/kvgrid.toml, else /etc/kvgrid/kvgrid.toml. `kvgrid config show` tells what is in "
    "force\n"
    "and from where, `kvgrid config example` prints a file to begin with.";
inline constexpr const char* kExamples =
    "kvgrid cluster start --workers 4 --memory 2GiB\n"
    "kvgrid model register --hugging-face config.json\n"
    "kvgrid top\n"
    "kvgrid trace replay TRACE.safetensors\n"
    "kvgrid cluster stop";

// What all commands share while the program runs.
//
//   Commands  `kvgrid NOUN VERB`, or one word where there is only one thing to do. Each has a file of its own in commands/ with one
//             function that registers it; main.cpp calls them all.
//   Output    output.h
//   Settings  options that are settings are added by `settings`, and are in force when the command runs.
class CommandLine {
  public:
    // A configuration that is wrong is said when a command needs it: help and the like do not.
    explicit CommandLine(Result<Config> loaded);

    CLI::App app{"A KV cache over many machines, with attention where the cache lies."};
    const Config config;  // what is built in, where the loaded one is wrong
    SettingOptions settings{config};
    OutputOptions output;
    ExitCode exit_code = ExitCode::done;

    // `kvgrid NAME` and `kvgrid NOUN NAME`, with the options that all commands have.
    CLI::App& command(const std::string& name, const std::string& description);
    CLI::App& command(CLI::App& noun, const std::string& name, const std::string& description);
    // The subcommand for a noun, made when the first of its verbs asks for it.
    CLI::App& noun(const std::string& name, const std::string& description);
    // What runs when `command` was chosen.
    void on(CLI::App& command, std::function<ExitCode()> run);
    // The same, for one that works without a configuration.
    void on_without_config(CLI::App& command, std::function<ExitCode()> run);

    // Says an error, and the command that may help, on standard error; what it makes of the exit code.
    ExitCode fail(const Error& error, const std::string& next = "") const;

  private:
    const Status config_status_;
    std::string config_file_;
};

// All that there are, in the order in which the help shows them.
void add_commands(CommandLine& line);
// Each registers the commands of one file of commands/.
void add_bench(CommandLine& line);
void add_cluster(CommandLine& line);
void add_completion(CommandLine& line);
void add_config(CommandLine& line);
void add_demo(CommandLine& line);
void add_doctor(CommandLine& line);
void add_manual(CommandLine& line);
void add_model(CommandLine& line);
void add_sequence(CommandLine& line);
void add_top(CommandLine& line);
void add_trace_record(CommandLine& line);
void add_trace_replay(CommandLine& line);
void add_version(CommandLine& line);

}  // namespace kvgrid::cli
