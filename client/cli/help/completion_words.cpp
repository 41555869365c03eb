#include "client/cli/help/completion_words.h"

namespace kvgrid::cli {

namespace {

void walk(const Path& path, const CommandNode& node,
          const std::function<void(const Path&, const CommandNode&)>& visit) {
    visit(path, node);
    for (const CommandNode& verb : node.verbs) {
        Path longer = path;
        longer.push_back(verb.name);
        walk(longer, verb, visit);
    }
}

}  // namespace

void for_each_command(const CommandNode& root, const std::function<void(const Path&, const CommandNode&)>& visit) {
    walk({}, root, visit);
}

std::string joined(const std::vector<std::string>& words, const std::string& between) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
    return text;
}

std::string single_quoted(const std::string& text) {
    std::string quoted = "'";
    for (const char each : text) quoted += each == '\'' ? std::string("'\\''") : std::string(1, each);
    return quoted + "'";
}

}  // namespace kvgrid::cli
