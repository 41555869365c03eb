#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "client/cli/command_line.h"
#include "client/cli/demo/demo.h"
#include "client/cli/interrupt.h"

namespace kvgrid::cli {

namespace {

// While it lives, what is written to standard output goes to standard error: the show is news where the result is JSON.
class StandardOutputAside {
  public:
    StandardOutputAside() : kept_(dup(STDOUT_FILENO)) { move(STDERR_FILENO); }
    ~StandardOutputAside() {
        move(kept_);
        close(kept_);
    }
    StandardOutputAside(const StandardOutputAside&) = delete;
    StandardOutputAside& operator=(const StandardOutputAside&) = delete;

  private:
    static void move(int to) {
        std::fflush(stdout);
        dup2(to, STDOUT_FILENO);
    }
    int kept_;
};

Result<DemoSummary> show(const DemoOptions& options, bool aside) {
    std::optional<StandardOutputAside> moved;
    if (aside) moved.emplace();
    return run_demo(options);
}

ExitCode run(const CommandLine& line, DemoOptions options) {
    InterruptWatch watch;
    options.progress_style = progress_style(line.output.quiet);
    options.interrupted = [&watch] { return watch.interrupted(); };
    const auto summary = show(options, line.output.json);
    if (watch.interrupted()) {
        fmt::print(stderr, "kvgrid: interrupted; everything that was started has been stopped\n");
        return ExitCode::interrupted;
    }
    if (!summary) {
        line.fail(summary.error(), "kvgrid doctor");
        return ExitCode::failed;
    }
    if (line.output.json) {
        nlohmann::json list = nlohmann::json::array();
        for (const auto& [what, figure] : *summary) list.push_back({{"what", what}, {"figure", figure}});
        print_json("demo", {{"summary", std::move(list)}});
    }
    return ExitCode::done;
}

}  // namespace

void add_demo(CommandLine& line) {
    CLI::App& command =
        line.command("demo", "start a cluster on this host, show what it does, and stop it (half a minute)");
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
    line.on(command, [options, &line] { return run(line, *options); });
}

}  // namespace kvgrid::cli
