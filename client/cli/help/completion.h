#pragma once

#include <string>

#include "client/cli/help/command_tree.h"

namespace kvgrid::cli {

// Scripts that complete commands, options, choices and file names, for the shells' completion folders:
// bash-completion/completions/kvgrid, zsh/site-functions/_kvgrid, fish/vendor_completions.d/kvgrid.fish.
std::string bash_completion(const CommandNode& tree);
std::string zsh_completion(const CommandNode& tree);
std::string fish_completion(const CommandNode& tree);

}  // namespace kvgrid::cli
