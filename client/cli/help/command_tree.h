#pragma once

#include <string>
#include <vector>

namespace kvgrid::cli {

// The command line as data: what the completions and the manual are made from.
struct CommandOption {
    std::vector<std::string> names;    // "-q", "--quiet"; of a positional one its name alone
    std::string value;                 // "NUMBER", "FILE"; empty for a flag
    std::vector<std::string> choices;  // where only these are allowed
    std::string description;
    std::string default_value;
    bool positional = false;
    bool required = false;
    bool takes_many = false;

    bool is_flag() const { return value.empty() && choices.empty() && !positional; }
};

struct CommandNode {
    std::string name;
    std::string description;
    std::vector<CommandOption> options;
    std::vector<CommandNode> verbs;
};

}  // namespace kvgrid::cli
