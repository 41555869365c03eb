#pragma once

#include <CLI/CLI.hpp>

#include "client/cli/help/command_tree.h"

namespace kvgrid::cli {

// Of what CLI11 has been told; what is in the group "" is hidden and left out.
CommandNode read_command_tree(const CLI::App& app);

}  // namespace kvgrid::cli
