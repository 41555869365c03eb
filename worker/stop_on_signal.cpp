#include "worker/stop_on_signal.h"

#include <pthread.h>

namespace kvgrid::worker {

namespace {

constexpr int kEnd = SIGUSR1;  // of the thread itself

const sigset_t& signals() {
    static const sigset_t set = [] {
        sigset_t made;
        sigemptyset(&made);
        sigaddset(&made, SIGTERM);
        sigaddset(&made, SIGINT);
        sigaddset(&made, kEnd);
        return made;
    }();
    return set;
}

}  // namespace

void StopOnSignal::block() {
    pthread_sigmask(SIG_BLOCK, &signals(), nullptr);
}

StopOnSignal::StopOnSignal(std::function<void()> drain, std::function<void()> stop)
    : thread_([drain = std::move(drain), stop = std::move(stop)] {
          for (bool first = true;; first = false) {
              int signal = 0;
              sigwait(&signals(), &signal);
              if (signal == kEnd) return;
              first ? drain() : stop();
          }
      }) {}

StopOnSignal::~StopOnSignal() {
    pthread_kill(thread_.native_handle(), kEnd);
    thread_.join();
}

}  // namespace kvgrid::worker
