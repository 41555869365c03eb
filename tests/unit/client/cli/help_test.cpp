// Completions and the manual are made from the command line itself: everything that can be typed is in them. Their syntax is checked by
// the programs that read them (tests/e2e/help_test.cpp).
#include <gtest/gtest.h>

#include <regex>

#include "client/cli/command_line.h"
#include "client/cli/help/completion.h"
#include "client/cli/help/completion_words.h"
#include "client/cli/help/manual.h"
#include "client/cli/help/read_command_tree.h"

namespace kvgrid::cli {
namespace {

CommandNode real_tree() {
    CommandLine line{Config()};
    add_commands(line);
    return read_command_tree(line.app);
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

const CommandNode& verb(const CommandNode& of, const std::string& name) {
    for (const CommandNode& each : of.verbs) {
        if (each.name == name) return each;
    }
    ADD_FAILURE() << "there is no " << name;
    return of;
}

TEST(CommandTree, HasTheCommandsWithTheirChoicesAndFiles) {
    const CommandNode tree = real_tree();

    for (const char* name : {"demo", "cluster", "model", "sequence", "trace", "bench", "top", "doctor", "config",
                             "completion", "man", "version"})
        verb(tree, name);
    const CommandNode& replay = verb(verb(tree, "trace"), "replay");
    const auto dtype = std::ranges::find_if(
        replay.options, [](const CommandOption& each) { return std::ranges::count(each.names, "--dtype") > 0; });
    ASSERT_NE(dtype, replay.options.end());
    EXPECT_EQ(dtype->choices, (std::vector<std::string>{"f32", "f16", "bf16"}));
    const auto file = std::ranges::find_if(replay.options, &CommandOption::positional);
    ASSERT_NE(file, replay.options.end());
    EXPECT_EQ(file->value, "FILE");
    EXPECT_TRUE(file->required);
}

TEST(CommandTree, LeavesOutWhatIsNobodysToType) {
    const CommandNode tree = real_tree();
    const std::vector<CommandNode>& verbs = verb(tree, "cluster").verbs;
    ASSERT_FALSE(verbs.empty());
    for (const CommandNode& each : verbs) EXPECT_NE(each.name, "keep");
}

TEST(CommandTree, EveryCommandTakesJsonAndSaysWhatEachOptionIs) {
    for_each_command(real_tree(), [](const Path& path, const CommandNode& node) {
        if (!node.verbs.empty()) return;
        bool json = false;
        for (const CommandOption& option : node.options) {
            json |= std::ranges::count(option.names, "--json") > 0;
            EXPECT_FALSE(option.description.empty()) << joined(path, " ") << " " << joined(option.names, " ");
        }
        EXPECT_TRUE(json) << joined(path, " ");
    });
}

TEST(Completion, HasEveryCommandAndOptionInEveryShell) {
    const CommandNode tree = real_tree();
    const std::string bash = bash_completion(tree), zsh = zsh_completion(tree), fish = fish_completion(tree);
    for_each_command(tree, [&](const Path& path, const CommandNode& node) {
        if (!path.empty()) {
            EXPECT_TRUE(has(bash, "'" + joined(path, " ") + "') words=")) << joined(path, " ");
            EXPECT_TRUE(has(zsh, "_kvgrid_" + joined(path, "_") + "()")) << joined(path, " ");
            EXPECT_TRUE(has(fish, "-a " + path.back() + " ")) << joined(path, " ");
        }
        for (const CommandOption& option : node.options) {
            if (option.positional) continue;
            for (const std::string& name : option.names) {
                EXPECT_TRUE(has(bash, name)) << name;
                EXPECT_TRUE(has(zsh, name)) << name;
                EXPECT_TRUE(has(fish, name.starts_with("--") ? "-l " + name.substr(2) : "-s " + name.substr(1)))
                    << name;
            }
        }
    });
}

TEST(Completion, QuotesSurvive) {
    EXPECT_EQ(single_quoted("it's"), "'it'\\''s'");
}

TEST(Manual, HasEveryCommandOptionExitCodeAndVariable) {
    const CommandNode tree = real_tree();
    const std::string page = manual_page(
        tree,
        {.version = "1.2.3", .exit_codes = exit_codes(), .configuration = kConfigurationText, .examples = kExamples});

    for_each_command(tree, [&](const Path& path, const CommandNode& node) {
        if (path.empty() || !node.verbs.empty()) return;
        const std::string name = std::regex_replace(joined(path, " "), std::regex("-"), "\\-");
        EXPECT_TRUE(has(page, ".SS \"kvgrid " + name + "\"")) << name;
    });
    EXPECT_TRUE(has(page, "\\fB\\-\\-json\\fR"));
    EXPECT_TRUE(has(page, ".SH \"EXIT STATUS\""));
    for (const auto& [code, meaning] : exit_codes()) EXPECT_TRUE(has(page, meaning)) << meaning;
    for (const Setting& setting : settings())
        EXPECT_TRUE(has(page, std::string(setting.environment))) << setting.environment;
}

TEST(Manual, AControlCharacterAtTheBeginningOfALineIsText) {
    const CommandNode tree{.name = "kvgrid", .verbs = {{.name = "x", .description = ".TH is\\not a macro"}}};

    EXPECT_TRUE(has(manual_page(tree, {}), "\n\\&.TH is\\enot a macro."));
}

}  // namespace
}  // namespace kvgrid::cli
