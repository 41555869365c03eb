#include "client/cli/local/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

namespace kvgrid::cli {

namespace {

constexpr std::chrono::milliseconds kPollInterval{5};

// The caller's environment with some values replaced, as NAME=VALUE.
std::vector<std::string> environment_with(const std::map<std::string, std::string>& changes) {
    std::vector<std::string> variables;
    for (char** variable = environ; *variable; ++variable) {
        const std::string text = *variable;
        if (!changes.contains(text.substr(0, text.find('=')))) variables.push_back(text);
    }
    for (const auto& [name, value] : changes) variables.push_back(name + "=" + value);
    return variables;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (std::string& text : texts) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    return pointers;
}

// All that the new process needs, made before the fork: after it, in a program with threads, only system calls are safe.
struct Prepared {
    char* const* arguments;
    char* const* environment;
    int log_descriptor;
    int error_pipe;  // closed by a successful exec; otherwise gets errno
    pid_t parent;
    bool outlives_parent;
};

[[noreturn]] void become(const Prepared& prepared) {
    if (prepared.outlives_parent) {
        setsid();
    } else {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != prepared.parent) _exit(127);  // it died before the line above
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, STDIN_FILENO);
    dup2(prepared.log_descriptor, STDOUT_FILENO);
    dup2(prepared.log_descriptor, STDERR_FILENO);
    execve(prepared.arguments[0], prepared.arguments, prepared.environment);
    const int cause = errno;
    [[maybe_unused]] const auto written = write(prepared.error_pipe, &cause, sizeof cause);
    _exit(127);
}

Error start_error(const std::string& program, int cause) {
    return {cause == ENOENT ? Errc::not_found : Errc::internal,
            fmt::format("cannot start {}: {}", program, std::strerror(cause))};
}

}  // namespace

Result<ChildProcess> ChildProcess::start(const ChildCommand& command) {
    std::vector<std::string> arguments = command.arguments;
    std::vector<std::string> environment = environment_with(command.environment);
    const std::vector<char*> argument_pointers = pointers_to(arguments);
    const std::vector<char*> environment_pointers = pointers_to(environment);

    const int log = open(command.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0) return start_error(arguments[0] + " with log " + command.log.string(), errno);
    int pipe_ends[2];
    if (pipe2(pipe_ends, O_CLOEXEC) != 0) {
        const int cause = errno;
        close(log);
        return start_error(arguments[0], cause);
    }
    const Prepared prepared{argument_pointers.data(), environment_pointers.data(), log, pipe_ends[1], getpid(),
                            command.outlives_caller};
    const pid_t child = fork();
    if (child == 0) become(prepared);
    int cause = child < 0 ? errno : 0;
    close(log);
    close(pipe_ends[1]);
    if (child > 0) {
        if (!command.outlives_caller) setpgid(child, child);  // as the child does itself: whoever comes first
        if (read(pipe_ends[0], &cause, sizeof cause) != sizeof cause) cause = 0;
    }
    close(pipe_ends[0]);
    if (child > 0 && cause != 0) waitpid(child, nullptr, 0);
    if (cause != 0) return start_error(arguments[0], cause);
    return ChildProcess(child);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : process_id_(std::exchange(other.process_id_, 0)), ended_(other.ended_), wait_status_(other.wait_status_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
    if (this == &other) return *this;
    kill_and_wait();
    process_id_ = std::exchange(other.process_id_, 0);
    ended_ = other.ended_;
    wait_status_ = other.wait_status_;
    return *this;
}

ChildProcess::~ChildProcess() {
    kill_and_wait();
}

bool ChildProcess::running() {
    if (process_id_ == 0 || ended_) return false;
    ended_ = waitpid(process_id_, &wait_status_, WNOHANG) != 0;
    return !ended_;
}

std::string ChildProcess::how_it_ended() const {
    if (WIFSIGNALED(wait_status_)) {
        return fmt::format("was ended by signal {} ({})", WTERMSIG(wait_status_), strsignal(WTERMSIG(wait_status_)));
    }
    return fmt::format("ended with exit status {}", WEXITSTATUS(wait_status_));
}

void ChildProcess::signal_group(int signal) {
    if (running()) kill(-process_id_, signal);
}

bool ChildProcess::wait_until(Deadline deadline) {
    while (running()) {
        if (std::chrono::steady_clock::now() >= deadline) return false;
        std::this_thread::sleep_for(kPollInterval);
    }
    return true;
}

void ChildProcess::kill_and_wait() {
    if (!running()) return;
    kill(-process_id_, SIGKILL);
    waitpid(process_id_, &wait_status_, 0);
    ended_ = true;
}

}  // namespace kvgrid::cli
