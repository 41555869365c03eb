#include "client/cli/help/manual.h"

#include <fmt/format.h>

#include <sstream>

#include "client/cli/help/completion_words.h"
#include "core/config/setting.h"

namespace kvgrid::cli {

namespace {

// Backslashes and dashes are roff's; a line may not begin with its control characters.
std::string roff(const std::string& text) {
    std::string result;
    for (const char each : text) {
        if (each == '\\') {
            result += "\\e";
        } else if (each == '-') {
            result += "\\-";
        } else {
            if ((each == '.' || each == '\'') && (result.empty() || result.back() == '\n')) result += "\\&";
            result += each;
        }
    }
    return result;
}

std::string option_text(const CommandOption& option) {
    std::string names;
    for (const std::string& name : option.names)
        names += (names.empty() ? "" : ", ") + fmt::format("\\fB{}\\fR", roff(name));
    std::string value;
    if (!option.choices.empty()) {
        value = fmt::format(" \\fI{}\\fR", roff(joined(option.choices, "|")));
    } else if (!option.is_flag() && !option.positional) {
        value = fmt::format(" \\fI{}\\fR", roff(option.value));
    }
    std::string text = fmt::format(".TP\n{}{}\n{}", names, value, roff(option.description));
    if (!option.default_value.empty()) text += fmt::format("; default {}", roff(option.default_value));
    return text + ".\n";
}

std::string command_text(const Path& path, const CommandNode& node) {
    std::string text = fmt::format(".SS \"kvgrid {}\"\n{}.\n", roff(joined(path, " ")), roff(node.description));
    for (const CommandOption& option : node.options) text += option_text(option);
    return text;
}

std::string environment_text() {
    std::string text;
    for (const Setting& setting : settings())
        text += fmt::format(".TP\n\\fB{}\\fR\n{} (\\fB{}\\fR of {}).\n", setting.environment,
                            roff(std::string(setting.doc)), setting.key(), setting.section());
    return text;
}

std::string literal(const std::string& lines) {
    return ".nf\n" + roff(lines) + "\n.fi\n";
}

}  // namespace

std::string manual_page(const CommandNode& tree, const ManualText& text) {
    std::string commands, codes;
    for_each_command(tree, [&](const Path& path, const CommandNode& node) {
        if (!path.empty() && node.verbs.empty()) commands += command_text(path, node);
    });
    for (const auto& [code, meaning] : text.exit_codes)
        codes += fmt::format(".TP\n\\fB{}\\fR\n{}.\n", static_cast<int>(code), roff(meaning));
    return fmt::format(
        ".TH KVGRID 1 \"\" \"kvgrid {}\" \"User Commands\"\n"
        ".SH NAME\nkvgrid \\- {}\n"
        ".SH SYNOPSIS\n\\fBkvgrid\\fR \\fINOUN\\fR \\fIVERB\\fR [\\fIoption\\fR ...]\n"
        ".SH DESCRIPTION\nResults go to standard output, everything else to standard error.\n"
        "With \\fB\\-\\-json\\fR both are JSON: one object with \"format\" and \"format_version\", an error as "
        "\"kvgrid.error\".\n"
        ".SH COMMANDS\n{}.SH CONFIGURATION\n{}\n.SH ENVIRONMENT\n{}.SH \"EXIT STATUS\"\n{}.SH EXAMPLES\n{}",
        text.version, "a KV cache over many machines, with attention where the cache lies", commands,
        roff(text.configuration), environment_text(), codes, literal(text.examples));
}

}  // namespace kvgrid::cli
