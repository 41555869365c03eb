// Words before the cursor are followed from command to command; what may come next is a `case` of where they lead.
#include <fmt/format.h>

#include "client/cli/help/completion.h"
#include "client/cli/help/completion_words.h"

namespace kvgrid::cli {

namespace {

// Verbs, and the choices of an argument.
std::vector<std::string> words_of(const CommandNode& node) {
    std::vector<std::string> words;
    for (const CommandNode& verb : node.verbs) words.push_back(verb.name);
    for (const CommandOption& option : node.options) {
        if (option.positional) words.insert(words.end(), option.choices.begin(), option.choices.end());
    }
    return words;
}

std::vector<std::string> options_of(const CommandNode& node) {
    std::vector<std::string> names;
    for (const CommandOption& option : node.options) {
        if (!option.positional) names.insert(names.end(), option.names.begin(), option.names.end());
    }
    return names;
}

bool takes_file(const CommandOption& option) {
    return option.value == "FILE";
}

// What follows an option that takes a value.
std::string value_cases(const Path& path, const CommandNode& node) {
    std::string cases;
    for (const CommandOption& option : node.options) {
        if (option.positional || option.is_flag()) continue;
        std::vector<std::string> patterns;
        for (const std::string& name : option.names) patterns.push_back("'" + joined(path, " ") + ":" + name + "'");
        const std::string words = takes_file(option)
                                      ? "compgen -f -- \"$current\""
                                      : fmt::format("compgen -W '{}' -- \"$current\"", joined(option.choices, " "));
        cases += fmt::format("        {}) mapfile -t COMPREPLY < <({}); return ;;\n", joined(patterns, " | "), words);
    }
    return cases;
}

bool takes_file_argument(const CommandNode& node) {
    for (const CommandOption& option : node.options) {
        if (option.positional && takes_file(option)) return true;
    }
    return false;
}

}  // namespace

std::string bash_completion(const CommandNode& tree) {
    std::string next, values, words;
    for_each_command(tree, [&](const Path& path, const CommandNode& node) {
        const std::string here = joined(path, " ");
        for (const CommandNode& verb : node.verbs) {
            next += fmt::format("            '{}:{}') command='{}' ;;\n", here, verb.name,
                                here.empty() ? verb.name : here + " " + verb.name);
        }
        values += value_cases(path, node);
        words += fmt::format("        '{}') words='{}' options='{}'{} ;;\n", here, joined(words_of(node), " "),
                             joined(options_of(node), " "), takes_file_argument(node) ? " files=1" : "");
    });
    return fmt::format(R"(# bash completion for kvgrid; made by `kvgrid completion bash`.
_kvgrid() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command='' words='' options='' files='' at
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; ++at)); do
        case "$command:${{COMP_WORDS[at]}}" in
{}        esac
    done
    case "$command:$previous" in
{}    esac
    case "$command" in
{}    esac
    if [[ $current == -* || -z $words$files ]]; then words=$options; fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    if [[ -n $files && $current != -* ]]; then
        local -a found
        mapfile -t found < <(compgen -f -- "$current")
        COMPREPLY+=("${{found[@]}}")
    fi
}}
complete -o filenames -F _kvgrid kvgrid
)",
                       next, values, words);
}

}  // namespace kvgrid::cli
