#include "comm/rpc/io_thread.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "comm/rpc/asio_impl.h"
#include "comm/rpc/ring_line.h"
#include "core/log.h"

namespace kvgrid::comm {
namespace {

// A defect that a handler throws must not be outlived by its process: this is the I/O thread's way to die.
template <class Work>
void run(const Work& work) {
    try {
        work();
    } catch (const std::exception& defect) {
        log_error(std::string("the I/O thread ends the process: ") + defect.what());
        std::terminate();
    }
}

// Looks at all rings for one at the sockets, which takes as long as some dozens of them.
std::size_t looks_for_one_poll(std::size_t ring_count) {
    constexpr std::size_t kMost = 16, kRings = 64;
    return std::clamp<std::size_t>(kRings / std::max<std::size_t>(1, ring_count), 1, kMost);
}

// Without sleeping. Others that wait for this core get it between two looks at the sockets.
template <class Done>
void poll_until(IoThread::Impl& impl, const Done& done, Deadline deadline) {
    for (std::size_t looks = 0; !done() && std::chrono::steady_clock::now() < deadline; ++looks) {
        if (impl.look()) continue;
        if (!impl.lines.empty() && looks % looks_for_one_poll(impl.lines.size()) != 0) continue;
        if (impl.context.poll_one() == 0) std::this_thread::yield();
    }
}

}  // namespace

void IoThread::Impl::add(const std::shared_ptr<RingLine>& line) {
    std::erase_if(lines, [](const auto& gone) { return gone.expired(); });
    lines.push_back(line);
    line->set_looking(looking);
}

// By index, and holding each: what is found may add lines, and end them.
bool IoThread::Impl::look() {
    bool found = false;
    for (std::size_t i = 0; i < lines.size(); ++i) {
        if (const auto line = lines[i].lock()) found |= line->look();
    }
    return found;
}

void IoThread::Impl::begin_looking() {
    if (std::exchange(looking, true)) return;
    for (const auto& held : lines) {
        if (const auto line = held.lock()) line->set_looking(true);
    }
}

void IoThread::Impl::cease_looking() {
    if (!std::exchange(looking, false)) return;
    for (const auto& held : lines) {
        if (const auto line = held.lock()) line->set_looking(false);
    }
    look();
}

IoThread::IoThread() : impl_(std::make_unique<Impl>()) {
    impl_->thread = std::thread([&impl = *impl_] {
        impl.turn.begin();
        run([&] { impl.context.run(); });
    });
    pthread_setname_np(impl_->thread.native_handle(), "kvgrid-io");
}

IoThread::~IoThread() {
    impl_->context.stop();
    impl_->turn.stop();
    impl_->thread.join();
}

void IoThread::post(std::function<void()> work) {
    impl_->turn.expect();
    asio::post(impl_->context, [&turn = impl_->turn, work = std::move(work)] {
        turn.expect_no_more();
        work();
    });
    impl_->turn.resume();
}

void IoThread::resume() {
    impl_->turn.resume();
}

bool IoThread::on_this_thread() const {
    return impl_->turn.is_mine();
}

IoThread::StandIn::StandIn(IoThread& io)
    : io_(io), stands_in_(io.impl_->turn.take([&impl = *io.impl_] {
          asio::post(impl.context, [&impl] {
              impl.turn.hand_over();
              impl.cease_looking();  // this thread sleeps
          });
      })) {
    if (stands_in_) io.impl_->begin_looking();
}

void IoThread::StandIn::leave() {
    if (std::exchange(stands_in_, false)) io_.impl_->turn.leave();
}

void IoThread::StandIn::work_until(const std::function<bool()>& done, Deadline deadline) {
    if (!stands_in_) return;
    Impl& impl = *io_.impl_;
    ShortWaits& waits = io_.impl_->stand_ins_waits;
    const TimePoint start = std::chrono::steady_clock::now();
    run([&] {
        if (waits.worth_polling()) poll_until(impl, done, std::min(deadline, start + ShortWaits::kPolling));
        while (!done() && std::chrono::steady_clock::now() < deadline) {
            impl.cease_looking();
            if (done()) break;
            if (deadline == Deadline::max()) {
                impl.context.run_one();
            } else {
                impl.context.run_one_until(deadline);
            }
        }
        impl.begin_looking();
    });
    waits.ended(std::chrono::steady_clock::now() - start);
}

void IoThread::StandIn::work_off() {
    if (!stands_in_) return;
    run([&] {
        io_.impl_->look();
        io_.impl_->context.poll();
    });
}

void IoThread::StandIn::look() {
    if (!stands_in_) return;
    run([&] { io_.impl_->look(); });
}

// The handle that the user holds; what runs is the State, which the pending wait keeps alive.
class IoThread::Timer {
  public:
    struct State {
        State(IoThread& io_thread, std::chrono::milliseconds time, std::function<void()> task)
            : io(io_thread), timer(io.impl().context), period(time), work(std::move(task)) {}

        IoThread& io;
        SteadyTimer timer;  // I/O thread only
        const std::chrono::milliseconds period;
        const std::function<void()> work;
        std::mutex running;  // held while `work` runs
        std::atomic<bool> stopped = false;
    };

    explicit Timer(std::shared_ptr<State> state) : state_(std::move(state)) {}

    ~Timer() {
        State& state = *state_;
        state.stopped = true;
        if (!state.io.on_this_thread()) std::lock_guard wait_for_a_running_call(state.running);
        state.io.post([held = state_] { held->timer.cancel(); });
    }

    static void wait(const std::shared_ptr<State>& state) {
        state->timer.async_wait([state](error_code error) {
            if (!error) fire(state);
        });
    }

  private:
    static void fire(const std::shared_ptr<State>& state) {
        {
            std::lock_guard lock(state->running);
            if (state->stopped) return;
            state->work();
        }
        if (state->stopped) return;
        // A late call does not make the next ones bunch up.
        state->timer.expires_at(std::max(state->timer.expiry() + state->period, std::chrono::steady_clock::now()));
        wait(state);
    }

    std::shared_ptr<State> state_;
};

std::shared_ptr<IoThread::Timer> IoThread::every(std::chrono::milliseconds period, std::function<void()> work) {
    auto state = std::make_shared<Timer::State>(*this, period, std::move(work));
    post([state] {
        state->timer.expires_after(state->period);
        Timer::wait(state);
    });
    return std::make_shared<Timer>(std::move(state));
}

}  // namespace kvgrid::comm
