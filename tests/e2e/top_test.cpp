// `kvgrid top` on a terminal, here a pseudo-terminal: it takes the screen, follows its size, and gives it back as it was, however it ends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "tests/e2e/e2e_cluster.h"
#include "tests/e2e/typed.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;

constexpr auto kTimeout = 30s;
constexpr const char* kEnter = "\033[?1049h";
constexpr const char* kLeave = "\033[?1049l";

struct Modes {
    tcflag_t input, output, local;
    friend bool operator==(const Modes&, const Modes&) = default;
};

// The program on a terminal of its own. It stays in the session of the test, so that stopping it means something.
class OnTerminal {
  public:
    OnTerminal(const User& user, const std::string& coordinator) {
        winsize size{.ws_row = 20, .ws_col = 90, .ws_xpixel = 0, .ws_ypixel = 0};
        EXPECT_EQ(openpty(&master_, &slave_, nullptr, nullptr, &size), 0);
        before_ = modes();
        const ExecText text({program("kvgrid"), "top", "--coordinator", coordinator, "--interval-ms", "50"},
                            user.environment);
        child_ = fork();
        if (child_ == 0) {
            setpgid(0, 0);
            for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(slave_, descriptor);
            execve(text.arguments()[0], text.arguments(), text.environment());
            _exit(127);
        }
    }
    ~OnTerminal() {
        if (!ended_) {
            kill(child_, SIGKILL);
            waitpid(child_, nullptr, 0);
        }
        close(master_);
        close(slave_);
    }

    // Whether the program writes `text` from now on.
    bool shows(const std::string& text) {
        const auto deadline = std::chrono::steady_clock::now() + kTimeout;
        while (std::chrono::steady_clock::now() < deadline) {
            if (const auto at = screen_.find(text); at != screen_.npos) {
                screen_.erase(0, at + text.size());
                return true;
            }
            read_some();
        }
        return false;
    }
    void resize(int columns, int rows) {
        const winsize size{.ws_row = static_cast<unsigned short>(rows),
                           .ws_col = static_cast<unsigned short>(columns),
                           .ws_xpixel = 0,
                           .ws_ypixel = 0};
        ioctl(master_, TIOCSWINSZ, &size);
        kill(child_, SIGWINCH);  // the terminal is not the program's controlling one
    }
    void press(char key) { EXPECT_EQ(write(master_, &key, 1), 1); }
    void signal(int number) { kill(child_, number); }

    // The exit code; everything that was written is read.
    int end() {
        const int status = wait(0);
        ended_ = true;
        while (read_some()) {
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    bool is_stopped() { return WIFSTOPPED(wait(WUNTRACED)); }

    bool is_as_before() const { return modes() == before_; }
    const std::string& rest() const { return screen_; }

  private:
    bool read_some() {
        pollfd watched{master_, POLLIN, 0};
        if (poll(&watched, 1, 20) <= 0) return false;
        char bytes[4096];
        const ssize_t count = read(master_, bytes, sizeof bytes);
        if (count > 0) screen_.append(bytes, static_cast<std::size_t>(count));
        return count > 0;
    }
    // Reads meanwhile: a terminal that nobody reads stops its writer.
    int wait(int options) {
        const auto deadline = std::chrono::steady_clock::now() + kTimeout;
        int status = -1;
        while (waitpid(child_, &status, options | WNOHANG) == 0) {
            EXPECT_LT(std::chrono::steady_clock::now(), deadline);
            if (std::chrono::steady_clock::now() >= deadline) break;
            read_some();
        }
        return status;
    }
    Modes modes() const {
        termios now{};
        tcgetattr(slave_, &now);
        return {now.c_iflag, now.c_oflag, now.c_lflag};
    }

    int master_ = -1, slave_ = -1;
    pid_t child_ = 0;
    bool ended_ = false;
    Modes before_{};
    std::string screen_;
};

class Top : public testing::Test {
  protected:
    static void SetUpTestSuite() { cluster_ = new E2eCluster(1); }
    static void TearDownTestSuite() { delete cluster_; }

    User user;
    OnTerminal terminal{user, cluster_->cluster().endpoint()};
    static E2eCluster* cluster_;
};
E2eCluster* Top::cluster_ = nullptr;

TEST_F(Top, TakesTheScreenAndGivesItBackOnQ) {
    ASSERT_TRUE(terminal.shows(kEnter));
    ASSERT_TRUE(terminal.shows("rank 0"));
    EXPECT_FALSE(terminal.is_as_before());

    terminal.press('q');

    EXPECT_EQ(terminal.end(), 0);
    EXPECT_TRUE(terminal.is_as_before());
    EXPECT_NE(terminal.rest().find(kLeave), std::string::npos);
}

TEST_F(Top, GivesTheScreenBackOnSignalsThatEndIt) {
    ASSERT_TRUE(terminal.shows("rank 0"));

    terminal.signal(SIGTERM);

    EXPECT_EQ(terminal.end(), 0);
    EXPECT_TRUE(terminal.is_as_before());
    EXPECT_NE(terminal.rest().find(kLeave), std::string::npos);
}

TEST_F(Top, CtrlCQuits) {
    ASSERT_TRUE(terminal.shows("rank 0"));

    terminal.press(3);

    EXPECT_EQ(terminal.end(), 0);
    EXPECT_TRUE(terminal.is_as_before());
}

TEST_F(Top, FollowsTheSizeOfTheTerminal) {
    ASSERT_TRUE(terminal.shows("pages: # used"));

    terminal.resize(30, 20);  // the heading is cut there
    ASSERT_TRUE(terminal.shows("\033[2J"));
    ASSERT_TRUE(terminal.shows("1 of 1 workers    pages: # use"));
    terminal.resize(120, 20);
    EXPECT_TRUE(terminal.shows("\033[2J"));
    EXPECT_TRUE(terminal.shows("+ reserved  . free"));
}

TEST_F(Top, IsStoppedAndGoesOn) {
    ASSERT_TRUE(terminal.shows("rank 0"));

    terminal.signal(SIGTSTP);

    ASSERT_TRUE(terminal.is_stopped());
    EXPECT_TRUE(terminal.is_as_before());
    EXPECT_TRUE(terminal.shows(kLeave));
    terminal.signal(SIGCONT);
    EXPECT_TRUE(terminal.shows(kEnter));
    EXPECT_TRUE(terminal.shows("rank 0"));
    terminal.press('q');
    EXPECT_EQ(terminal.end(), 0);
    EXPECT_TRUE(terminal.is_as_before());
}

}  // namespace
}  // namespace kvgrid::e2e
