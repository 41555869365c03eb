// A function for each command: nouns choose among their verbs, verbs describe their options to _arguments.
#include <fmt/format.h>

#include "client/cli/help/completion.h"
#include "client/cli/help/completion_words.h"

namespace kvgrid::cli {

namespace {

// Within the brackets of an _arguments specification.
std::string escaped(const std::string& text) {
    std::string result;
    for (const char each : text) {
        if (each == '[' || each == ']' || each == ':' || each == '\\') result += '\\';
        result += each;
    }
    return result;
}

std::string action(const CommandOption& option) {
    if (option.value == "FILE") return "_files";
    return option.choices.empty() ? "" : "(" + joined(option.choices, " ") + ")";
}

std::vector<std::string> specifications(const CommandOption& option) {
    std::vector<std::string> specs;
    for (const std::string& name : option.names) {
        if (option.positional) {
            specs.push_back(fmt::format("{}:{}:{}", option.takes_many ? "*" : "", escaped(name), action(option)));
            continue;
        }
        std::string spec = fmt::format("{}[{}]", name, escaped(option.description));
        if (!option.is_flag()) spec += fmt::format(":{}:{}", escaped(option.value), action(option));
        specs.push_back((option.takes_many ? "*" : "") + spec);
    }
    return specs;
}

std::string function_name(const Path& path) {
    return path.empty() ? "_kvgrid" : "_kvgrid_" + joined(path, "_");
}

std::string arguments_call(const CommandNode& node, const std::string& flags = "") {
    std::string call = "    _arguments" + flags;
    for (const CommandOption& option : node.options) {
        for (const std::string& spec : specifications(option)) call += " \\\n        " + single_quoted(spec);
    }
    return call;
}

std::string noun_function(const Path& path, const CommandNode& node) {
    std::string verbs, cases;
    for (const CommandNode& verb : node.verbs) {
        Path longer = path;
        longer.push_back(verb.name);
        verbs += " \\\n            " + single_quoted(verb.name + ":" + verb.description);
        cases += fmt::format("            {}) {} ;;\n", verb.name, function_name(longer));
    }
    return fmt::format(
        "{}() {{\n    local line state\n{} \\\n        '1:command:->command' '*::argument:->argument'\n"
        "    case $state in\n    command)\n        local -a commands=({})\n        _describe command commands ;;\n"
        "    argument)\n        case $line[1] in\n{}        esac ;;\n    esac\n}}\n\n",
        function_name(path), arguments_call(node, " -C"), verbs, cases);
}

}  // namespace

std::string zsh_completion(const CommandNode& tree) {
    std::string text = "#compdef kvgrid\n# zsh completion for kvgrid; made by `kvgrid completion zsh`.\n\n";
    for_each_command(tree, [&](const Path& path, const CommandNode& node) {
        text += node.verbs.empty() ? fmt::format("{}() {{\n{}\n}}\n\n", function_name(path), arguments_call(node))
                                   : noun_function(path, node);
    });
    return text + "_kvgrid \"$@\"\n";
}

}  // namespace kvgrid::cli
