#include <fmt/format.h>

#include "client/cli/command_line.h"
#include "client/cli/demo/demo.h"
#include "client/cli/interrupt.h"

namespace kvgrid::cli {

namespace {

ExitCode run(DemoOptions options, bool quiet) {
    InterruptWatch watch;
    options.progress_style = progress_style(quiet);
    options.interrupted = [&watch] { return watch.interrupted(); };
    const Status done = run_demo(options);
    if (watch.interrupted()) {
        fmt::print(stderr, "kvgrid: interrupted; everything that was started has been stopped\n");
        return ExitCode::interrupted;
    }
    if (done) return ExitCode::done;
    report(done.error());
    return ExitCode::failed;
}

}  // namespace

void add_demo(CommandLine& line) {
    CLI::App& command = *line.app.add_subcommand(
        "demo", "start a cluster on this host, show what it does, and stop it (half a minute)");
    auto options = std::make_shared<DemoOptions>();
    command.add_option("--trace", options->trace,
                       "the recorded run to replay; as a rule the one that comes with kvgrid");
    command.add_option("--tokens", options->wish.context_tokens, "length of the long context")
        ->check(CLI::Range(std::int64_t{64}, std::int64_t{1} << 24))
        ->capture_default_str();
    command.add_option("--decode-tokens", options->wish.decode_tokens, "tokens decoded from it")
        ->check(CLI::Range(1, 100'000))
        ->capture_default_str();
    command.add_option("--layers", options->wish.layers, "layers of its model")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    command.add_option("--state-dir", options->state_dir, "keeps the catalogue and the logs there");
    line.on(command, [options, &line] { return run(*options, line.quiet); });
}

}  // namespace kvgrid::cli
