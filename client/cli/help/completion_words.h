#pragma once

#include <functional>
#include <string>
#include <vector>

#include "client/cli/help/command_tree.h"

namespace kvgrid::cli {

using Path = std::vector<std::string>;  // the words of a command after the program's name: {"model", "list"}

// Calls `visit` for every command and noun of the tree, the root first.
void for_each_command(const CommandNode& root, const std::function<void(const Path&, const CommandNode&)>& visit);

std::string joined(const std::vector<std::string>& words, const std::string& between);

// Within single quotes of a shell: ' becomes '\''.
std::string single_quoted(const std::string& text);

}  // namespace kvgrid::cli
