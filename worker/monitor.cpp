#include "worker/monitor.h"

#include <future>
#include <memory>

#include "comm/monitor/monitor_routes.h"

namespace kvgrid::worker {

namespace {

constexpr std::chrono::seconds kPatience{1};  // with the I/O thread, whose work is counted in microseconds
constexpr const char* kStuck = "the I/O thread has not answered for 1 s";

}  // namespace

WorkerMonitor::WorkerMonitor(Sources sources)
    : sources_(std::move(sources)),
      server_(io_, comm::monitor_routes({.program = "kvgrid-worker",
                                         .not_live = [this] { return not_live(); },
                                         .not_ready = [this] { return not_ready(); },
                                         .metrics = [this] { return metrics(); }})) {}

Result<comm::Endpoint> WorkerMonitor::listen(const comm::Endpoint& endpoint, bool allow_remote) {
    return server_.listen(endpoint, allow_remote);
}

std::optional<NodeState> WorkerMonitor::ask() const {
    auto answer = std::make_shared<std::promise<NodeState>>();
    auto future = answer->get_future();
    sources_.io.post([answer, state = sources_.state] { answer->set_value(state()); });
    if (future.wait_for(kPatience) != std::future_status::ready) return std::nullopt;
    return future.get();
}

std::string WorkerMonitor::not_live() const {
    return ask() ? "" : kStuck;
}

std::string WorkerMonitor::not_ready() const {
    const auto state = ask();
    return state ? state->not_ready : kStuck;
}

std::string WorkerMonitor::metrics() const {
    const auto& abandoned = sources_.abandoned_mpi_requests;
    return sources_.metrics.text({sources_.server, ask(), abandoned ? abandoned() : 0});
}

}  // namespace kvgrid::worker
