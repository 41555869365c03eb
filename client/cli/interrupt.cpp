#include "client/cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace kvgrid::cli {

namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

std::atomic<bool> noted = false;  // what a signal handler can reach
static_assert(std::atomic<bool>::is_always_lock_free);

void note(int) {
    noted = true;
}

}  // namespace

InterruptWatch::InterruptWatch() {
    noted = false;
    struct sigaction action {};
    action.sa_handler = note;
    action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
    for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

InterruptWatch::~InterruptWatch() {
    for (const int signal : kSignals) std::signal(signal, SIG_DFL);
}

bool InterruptWatch::interrupted() const {
    return noted;
}

}  // namespace kvgrid::cli
