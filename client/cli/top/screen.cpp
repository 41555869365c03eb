#include "client/cli/top/screen.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace kvgrid::cli {

namespace {

constexpr std::string_view kEnter = "\033[?1049h\033[?25l\033[2J";  // the other screen, no cursor, empty
constexpr std::string_view kLeave = "\033[?25h\033[?1049l";
constexpr char kCtrlC = 3;
constexpr char kCtrlD = 4;
constexpr char kCtrlZ = 26;

// What is cut off by an error is drawn again with the next picture.
void write_all(std::string_view text) {
    while (!text.empty()) {
        const ssize_t count = write(STDOUT_FILENO, text.data(), text.size());
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return;
        text.remove_prefix(static_cast<std::size_t>(count));
    }
}

sigset_t watched_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH}) sigaddset(&set, signal);
    return set;
}

}  // namespace

Result<Screen> Screen::open() {
    termios before{};
    if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0)
        return {Errc::unsupported, "standard input and output are no terminal: use --once"};
    const sigset_t watched = watched_signals();
    sigset_t blocked_before;
    pthread_sigmask(SIG_BLOCK, &watched, &blocked_before);
    const int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) {
        pthread_sigmask(SIG_SETMASK, &blocked_before, nullptr);
        return {Errc::internal, fmt::format("signalfd: {}", std::strerror(errno))};
    }
    return Screen(signals, blocked_before, before);
}

Screen::Screen(int signals, const sigset_t& blocked_before, const termios& before)
    : signals_(signals), blocked_before_(blocked_before), before_(before) {
    enter();
}

Screen::Screen(Screen&& other) noexcept
    : signals_(std::exchange(other.signals_, -1)),
      blocked_before_(other.blocked_before_),
      before_(other.before_),
      columns_(other.columns_),
      rows_(other.rows_) {}

Screen::~Screen() {
    if (signals_ < 0) return;
    leave();
    close(signals_);
    pthread_sigmask(SIG_SETMASK, &blocked_before_, nullptr);
}

void Screen::enter() {
    termios raw = before_;
    cfmakeraw(&raw);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    write_all(kEnter);
    measure();
}

void Screen::leave() {
    write_all(kLeave);
    tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

void Screen::measure() {
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return;
    columns_ = size.ws_col;
    rows_ = size.ws_row;
}

void Screen::draw(const std::vector<std::string>& lines) {
    std::string picture = "\033[H";
    const auto count = std::min<std::size_t>(lines.size(), static_cast<std::size_t>(rows_));
    for (std::size_t at = 0; at < count; ++at) picture += (at == 0 ? "" : "\r\n") + lines[at] + "\033[K";
    write_all(picture + "\033[J");
}

// The default action of SIGTSTP, with the terminal as the shell knows it.
void Screen::stop() {
    leave();
    sigset_t only_stop;
    sigemptyset(&only_stop);
    sigaddset(&only_stop, SIGTSTP);
    raise(SIGTSTP);
    pthread_sigmask(SIG_UNBLOCK, &only_stop, nullptr);  // stops here, until SIGCONT
    pthread_sigmask(SIG_BLOCK, &only_stop, nullptr);
    enter();
}

Screen::Event Screen::take_signal() {
    signalfd_siginfo info{};
    if (read(signals_, &info, sizeof info) != sizeof info) return Event::none;
    switch (info.ssi_signo) {
        case SIGTSTP:
            stop();
            return Event::redraw;
        case SIGWINCH:
            measure();
            write_all("\033[2J");
            return Event::redraw;
        case SIGCONT:
            return Event::redraw;
        default:
            return Event::quit;
    }
}

// Without the terminal's own handling (raw), its control keys come as bytes.
Screen::Event Screen::take_key() {
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) != 1) return Event::quit;
    if (key == 'q' || key == 'Q' || key == kCtrlC || key == kCtrlD) return Event::quit;
    if (key == kCtrlZ) stop();
    return Event::redraw;
}

Screen::Event Screen::wait(std::chrono::milliseconds timeout, int watched_descriptor) {
    pollfd watched[] = {{signals_, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}, {watched_descriptor, POLLIN, 0}};
    const int count = poll(watched, std::size(watched), static_cast<int>(timeout.count()));
    if (count <= 0) return Event::none;
    if (watched[0].revents) return take_signal();
    if (watched[1].revents) return take_key();
    return Event::refresh;
}

}  // namespace kvgrid::cli
