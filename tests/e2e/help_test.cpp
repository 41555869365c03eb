// What is made from the help is read by the programs that it is for: bash, zsh and fish where they are here, groff or mandoc.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "client/cli/local/child_process.h"
#include "tests/e2e/typed.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;

// Nothing where there is no such program.
std::string find_program(const std::string& name) {
    for (const char* folder : {"/usr/bin/", "/bin/", "/usr/local/bin/"}) {
        if (access((folder + name).c_str(), X_OK) == 0) return folder + name;
    }
    return "";
}

// What a program says; its exit status is expected to be 0.
std::string said_by(const User& user, const std::vector<std::string>& arguments) {
    const auto log = user.home() / "said";
    std::filesystem::remove(log);
    auto child = cli::ChildProcess::start({.arguments = arguments, .environment = {}, .log = log}).value();
    EXPECT_TRUE(child.wait_until(deadline_in(30s)));
    EXPECT_EQ(child.how_it_ended(), "ended with exit status 0") << arguments[0];
    std::ifstream stream(log);
    return {std::istreambuf_iterator<char>(stream), {}};
}

std::string made_file(const User& user, const std::string& name, const std::vector<std::string>& command) {
    const Typed made = user.types(command);
    EXPECT_EQ(made.exit_code, 0) << made.err;
    EXPECT_FALSE(made.out.empty());
    const auto file = user.home() / name;
    std::ofstream(file) << made.out;
    return file;
}

// The completions of a line whose last word is being typed.
std::string completions(const User& user, const std::string& script, const std::string& words) {
    return said_by(user, {find_program("bash"), "-c",
                          "source " + script + "; COMP_WORDS=(" + words +
                              "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _kvgrid; "
                              "echo \"${COMPREPLY[*]}\""});
}

TEST(Completion, BashAcceptsItAndCompletes) {
    User user;
    const std::string script = made_file(user, "kvgrid.bash", {"completion", "bash"});
    const std::string bash = find_program("bash");
    ASSERT_FALSE(bash.empty());
    EXPECT_EQ(said_by(user, {bash, "-n", script}), "");

    EXPECT_EQ(completions(user, script, "kvgrid mod"), "model\n");
    EXPECT_EQ(completions(user, script, "kvgrid model ''"), "register list\n");
    EXPECT_EQ(completions(user, script, "kvgrid cluster start --work"), "--workers\n");
    EXPECT_EQ(completions(user, script, "kvgrid trace replay --dtype b"), "bf16\n");
    EXPECT_EQ(completions(user, script, "kvgrid completion ''").substr(0, 14), "bash zsh fish\n");
    EXPECT_EQ(completions(user, script, "kvgrid model register --spec " + script.substr(0, script.size() - 2)),
              script + "\n");
    EXPECT_EQ(completions(user, script, "kvgrid cluster start --workers ''"), "\n");
}

TEST(Completion, ZshAndFishAcceptTheirs) {
    User user;
    const std::string zsh_script = made_file(user, "_kvgrid", {"completion", "zsh"});
    const std::string fish_script = made_file(user, "kvgrid.fish", {"completion", "fish"});
    if (const std::string zsh = find_program("zsh"); !zsh.empty()) {
        EXPECT_EQ(said_by(user, {zsh, "-n", zsh_script}), "");
    }
    if (const std::string fish = find_program("fish"); !fish.empty()) {
        EXPECT_EQ(said_by(user, {fish, "-n", fish_script}), "");
        EXPECT_EQ(
            said_by(user, {fish, "-c", "source " + fish_script + "; complete -C 'kvgrid cluster sto'"}).substr(0, 4),
            "stop");
    }
}

TEST(Manual, IsReadWithoutAWarning) {
    User user;
    const std::string page = made_file(user, "kvgrid.1", {"man"});
    const std::string groff = find_program("groff"), mandoc = find_program("mandoc");
    const bool is_read = !groff.empty() || !mandoc.empty();
    if (!is_read && std::getenv("CMAKE_PREFIX_PATH")) {
        GTEST_SKIP() << "there is neither groff nor mandoc, and CMAKE_PREFIX_PATH is set: nothing is installed here";
    }
    ASSERT_TRUE(is_read) << "install groff-base (./dev setup)";

    if (!groff.empty()) {
        EXPECT_EQ(said_by(user, {groff, "-man", "-Tutf8", "-ww", "-z", page}), "");
    }
    if (!mandoc.empty()) {
        EXPECT_EQ(said_by(user, {mandoc, "-Tlint", "-Werror", page}), "");
    }
}

}  // namespace
}  // namespace kvgrid::e2e
