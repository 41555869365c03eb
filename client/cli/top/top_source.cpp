#include "client/cli/top/top_source.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace kvgrid::cli {

TopSnapshot take_snapshot(Client& client, const std::string& coordinator) {
    TopSnapshot snapshot{.coordinator = coordinator};
    auto status = client.status();
    if (!status) {
        snapshot.problem = status.error().to_string();
    } else {
        snapshot.status = *std::move(status);
        // Asked of a grid that is not ready, it would be waited for.
        auto occupancy = snapshot.status.ready ? client.occupancy() : Error{Errc::unavailable, ""};
        if (occupancy) {
            snapshot.occupancy = *std::move(occupancy);
        } else if (snapshot.status.ready) {
            snapshot.problem = "the lead: " + occupancy.error().to_string();
        }
    }
    snapshot.taken = std::chrono::steady_clock::now();
    return snapshot;
}

struct TopSource::Impl {
    Client client;
    std::string coordinator;
    std::chrono::milliseconds period;
    int ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    std::mutex mutex;
    std::condition_variable_any ending;
    std::optional<TopSnapshot> newest;
    std::jthread thread;  // last: it ends before what it uses

    void look(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            TopSnapshot snapshot = take_snapshot(client, coordinator);
            std::unique_lock lock(mutex);
            newest = std::move(snapshot);
            eventfd_write(ready, 1);
            ending.wait_for(lock, stop, period, [] { return false; });
        }
    }
    ~Impl() {
        thread.request_stop();
        if (thread.joinable()) thread.join();
        close(ready);
    }
};

TopSource::TopSource(Client client, std::string coordinator, std::chrono::milliseconds period)
    : impl_(new Impl{.client = std::move(client), .coordinator = std::move(coordinator), .period = period}) {
    impl_->thread = std::jthread([impl = impl_.get()](const std::stop_token& stop) { impl->look(stop); });
}

TopSource::~TopSource() = default;

int TopSource::descriptor() const {
    return impl_->ready;
}

std::optional<TopSnapshot> TopSource::take() {
    std::lock_guard lock(impl_->mutex);
    eventfd_t ignored = 0;
    eventfd_read(impl_->ready, &ignored);
    return std::exchange(impl_->newest, std::nullopt);
}

}  // namespace kvgrid::cli
