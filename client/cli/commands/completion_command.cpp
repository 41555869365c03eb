#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "client/cli/command_line.h"
#include "client/cli/help/completion.h"
#include "client/cli/help/read_command_tree.h"

namespace kvgrid::cli {

void add_completion(CommandLine& line) {
    CLI::App& command = line.command("completion", "a script that completes kvgrid's commands in a shell");
    auto shell = std::make_shared<std::string>();
    command.add_option("SHELL", *shell, "which shell")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
    line.on_without_config(command, [shell, &line] {
        const CommandNode tree = read_command_tree(line.app);
        const std::string script = *shell == "bash"  ? bash_completion(tree)
                                   : *shell == "zsh" ? zsh_completion(tree)
                                                     : fish_completion(tree);
        if (line.output.json) {
            print_json("completion", {{"shell", *shell}, {"script", script}});
        } else {
            fmt::print("{}", script);
        }
        return ExitCode::done;
    });
}

}  // namespace kvgrid::cli
