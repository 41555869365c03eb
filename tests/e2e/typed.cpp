#include "tests/e2e/typed.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <thread>

#include "core/clock.h"
#include "tests/e2e/e2e_cluster.h"

namespace kvgrid::e2e {

namespace {

using namespace std::chrono_literals;

std::string text_of(const std::filesystem::path& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

void redirect(const char* path, int flags, int to) {
    const int descriptor = open(path, flags | O_CLOEXEC, 0600);
    dup2(descriptor, to);
}

// The exit code, or -1 where it had to be killed.
int wait_for(pid_t child, std::chrono::milliseconds timeout) {
    const Deadline deadline = deadline_in(timeout);
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (std::chrono::steady_clock::now() >= deadline) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return -1;
        }
        std::this_thread::sleep_for(5ms);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

ExecText::ExecText(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& environment)
    : arguments_(arguments) {
    for (const auto& [name, value] : environment) environment_.push_back(name + "=" + value);
    for (std::string& text : arguments_) argument_pointers_.push_back(text.data());
    for (std::string& text : environment_) environment_pointers_.push_back(text.data());
    argument_pointers_.push_back(nullptr);
    environment_pointers_.push_back(nullptr);
}

User::User() : directory_(cli::TemporaryDirectory::make().value()) {
    environment = {{"HOME", home()}, {"PATH", std::getenv("PATH")}, {"TERM", "xterm"}};
}

User::~User() {
    (void)types({"cluster", "stop"});
}

Typed User::types(const std::vector<std::string>& arguments, std::chrono::milliseconds timeout) const {
    std::vector<std::string> all{program("kvgrid")};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const ExecText text(all, environment);
    const std::string out = home() / "out", err = home() / "err";
    const pid_t child = fork();
    if (child == 0) {
        redirect("/dev/null", O_RDONLY, STDIN_FILENO);
        redirect(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
        redirect(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
        execve(text.arguments()[0], text.arguments(), text.environment());
        _exit(127);
    }
    Typed typed{.exit_code = wait_for(child, timeout), .out = {}, .err = {}};
    typed.out = text_of(out);
    typed.err = text_of(err);
    return typed;
}

}  // namespace kvgrid::e2e
