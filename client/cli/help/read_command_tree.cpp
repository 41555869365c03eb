#include "client/cli/help/read_command_tree.h"

#include <sstream>

namespace kvgrid::cli {

namespace {

// CLI11 keeps the choices of IsMember in the type's name only: "TEXT:{f32,f16}".
void read_type(const std::string& type, CommandOption& option) {
    const auto open = type.find('{'), close = type.find('}');
    if (open == type.npos || close == type.npos) {
        option.value = type.substr(0, type.find_first_of(": "));
        return;
    }
    std::istringstream choices(type.substr(open + 1, close - open - 1));
    for (std::string choice; std::getline(choices, choice, ',');) option.choices.push_back(choice);
}

CommandOption read_option(const CLI::Option& from) {
    CommandOption option{.names = {},
                         .value = {},
                         .choices = {},
                         .description = from.get_description(),
                         .default_value = from.get_default_str(),
                         .positional = !from.nonpositional(),
                         .required = from.get_required(),
                         .takes_many = from.get_items_expected_max() > 1};
    for (const std::string& name : from.get_snames()) option.names.push_back("-" + name);
    for (const std::string& name : from.get_lnames()) option.names.push_back("--" + name);
    if (option.positional) option.names.push_back(from.get_name());
    if (from.get_type_size_max() > 0) read_type(from.get_type_name(), option);
    return option;
}

void read_options(const CLI::App& app, std::vector<CommandOption>& into) {
    for (const CLI::Option* option : app.get_options()) {
        if (!option->get_group().empty()) into.push_back(read_option(*option));
    }
}

}  // namespace

CommandNode read_command_tree(const CLI::App& app) {
    CommandNode node{.name = app.get_name(), .description = app.get_description(), .options = {}, .verbs = {}};
    read_options(app, node.options);
    for (const CLI::App* each : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (each->get_name().empty()) {
            read_options(*each, node.options);  // an option group
        } else if (!each->get_group().empty()) {
            node.verbs.push_back(read_command_tree(*each));
        }
    }
    return node;
}

}  // namespace kvgrid::cli
