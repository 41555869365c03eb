#pragma once

#include <span>
#include <string>

#include "client/cli/exit_code.h"
#include "client/cli/help/command_tree.h"

namespace kvgrid::cli {

struct ManualText {
    std::string version;
    std::span<const ExitCodeMeaning> exit_codes;
    std::string configuration;  // about the file, the environment and flags; paragraphs
    std::string examples;       // as they are typed, one a line
};

// The manual page kvgrid(1), in the man macros.
std::string manual_page(const CommandNode& tree, const ManualText& text);

}  // namespace kvgrid::cli
