// The program says where it listens, ends cleanly when told, and ends with the exit code that tells why otherwise.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/unit/coordinator/temporary_directory.h"

namespace kvgrid::coordinator {
namespace {

// The program as a child; its standard output can be read line by line.
class Program {
  public:
    explicit Program(std::vector<std::string> arguments) {
        int ends[2];
        if (pipe(ends) != 0) ADD_FAILURE() << "no pipe";
        pid_ = fork();
        if (pid_ == 0) {
            dup2(ends[1], STDOUT_FILENO);
            ::close(ends[0]);
            ::close(ends[1]);
            arguments.insert(arguments.begin(), KVGRID_COORDINATOR);
            std::vector<char*> argv;
            for (std::string& argument : arguments) argv.push_back(argument.data());
            argv.push_back(nullptr);
            execv(argv[0], argv.data());
            _exit(127);
        }
        ::close(ends[1]);
        output_ = fdopen(ends[0], "r");
    }
    ~Program() {
        if (pid_ > 0) {
            kill(pid_, SIGKILL);
            waitpid(pid_, nullptr, 0);
        }
        fclose(output_);
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    std::string read_line() {
        char line[512] = "";
        if (fgets(line, sizeof line, output_) == nullptr) return "";
        return line;
    }
    void tell(int signal_number) { kill(pid_, signal_number); }
    int wait_for_exit_code() {
        int status = 0;
        waitpid(pid_, &status, 0);
        pid_ = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }

  private:
    pid_t pid_ = 0;
    FILE* output_ = nullptr;
};

TEST(Program, SaysWhereItListensAndEndsCleanlyWhenTold) {
    for (const int signal_number : {SIGTERM, SIGINT}) {
        TemporaryDirectory directory;
        const std::string socket = "unix:" + (directory.path() / "socket").string();
        Program program({"--listen", "127.0.0.1:0", "--listen", socket, "--state-dir", directory.path() / "state",
                         "--workers", "1", "--log-level", "error", "--exit-with-parent"});
        const std::string first = program.read_line();
        EXPECT_EQ(first.rfind("listening on 127.0.0.1:", 0), 0u) << first;
        EXPECT_NE(first, "listening on 127.0.0.1:0\n");
        EXPECT_EQ(program.read_line(), "listening on " + socket + "\n");
        program.tell(signal_number);
        EXPECT_EQ(program.wait_for_exit_code(), 0);
    }
}

TEST(Program, WrongUsageIsExitCodeTwo) {
    TemporaryDirectory directory;
    const std::string state = directory.path() / "state";
    EXPECT_EQ(Program({"--workers", "1"}).wait_for_exit_code(), 2);
    EXPECT_EQ(Program({"--state-dir", state, "--workers", "0"}).wait_for_exit_code(), 2);
    EXPECT_EQ(Program({"--state-dir", state, "--workers", "1", "--dead-after-ms", "400"}).wait_for_exit_code(), 2);
}

TEST(Program, WhatCannotStartIsExitCodeOne) {
    TemporaryDirectory directory;
    const std::string state = directory.path() / "state";
    EXPECT_EQ(Program({"--state-dir", state, "--workers", "1", "--listen", "0.0.0.0:0"}).wait_for_exit_code(), 1);
    EXPECT_EQ(Program({"--state-dir", state, "--workers", "1", "--listen", "nowhere"}).wait_for_exit_code(), 1);
    EXPECT_EQ(Program({"--state-dir", "/dev/null/state", "--workers", "1"}).wait_for_exit_code(), 1);
}

}  // namespace
}  // namespace kvgrid::coordinator
