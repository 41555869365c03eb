// A line for each verb and option, with the condition under which it holds: which words are on the line already.
#include <fmt/format.h>

#include "client/cli/help/completion.h"
#include "client/cli/help/completion_words.h"

namespace kvgrid::cli {

namespace {

// Within single quotes fish knows \' and \\ only.
std::string quoted(const std::string& text) {
    std::string result = "'";
    for (const char each : text) {
        if (each == '\'' || each == '\\') result += '\\';
        result += each;
    }
    return result + "'";
}

std::string condition(const Path& path, const CommandNode& node) {
    std::vector<std::string> conditions;
    for (const std::string& word : path) conditions.push_back("__fish_seen_subcommand_from " + word);
    std::vector<std::string> verbs;
    for (const CommandNode& verb : node.verbs) verbs.push_back(verb.name);
    if (!verbs.empty()) conditions.push_back("not __fish_seen_subcommand_from " + joined(verbs, " "));
    return joined(conditions, "; and ");
}

std::string option_line(const CommandOption& option, const std::string& when) {
    std::string line = fmt::format("complete -c kvgrid -n {}", quoted(when));
    for (const std::string& name : option.names) {
        if (!option.positional) line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    }
    if (option.value == "FILE") {
        line += option.positional ? " -F" : " -r -F";
    } else if (!option.choices.empty()) {
        line += fmt::format(" {}-f -a {}", option.positional ? "" : "-x ", quoted(joined(option.choices, " ")));
    } else if (!option.is_flag()) {
        line += " -x";
    }
    return line + fmt::format(" -d {}\n", quoted(option.description));
}

}  // namespace

std::string fish_completion(const CommandNode& tree) {
    std::string text = "# fish completion for kvgrid; made by `kvgrid completion fish`.\ncomplete -c kvgrid -f\n";
    for_each_command(tree, [&](const Path& path, const CommandNode& node) {
        const std::string when = condition(path, node);
        for (const CommandNode& verb : node.verbs) {
            text += fmt::format("complete -c kvgrid -n {} -a {} -d {}\n", quoted(when), verb.name,
                                quoted(verb.description));
        }
        for (const CommandOption& option : node.options) {
            const bool completes = !option.positional || option.value == "FILE" || !option.choices.empty();
            if (completes) text += option_line(option, when);
        }
    });
    return text;
}

}  // namespace kvgrid::cli
