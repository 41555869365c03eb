#include "client/cluster_link.h"

#include <fmt/core.h>

#include <algorithm>
#include <thread>
#include <utility>

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;

constexpr auto kWatchPeriod = 500ms;

// Waits longer each time; says no when the deadline has come.
class Backoff {
  public:
    explicit Backoff(Deadline deadline) : deadline_(deadline) {}

    bool pause() {
        if (std::chrono::steady_clock::now() >= deadline_) return false;
        std::this_thread::sleep_until(std::min(deadline_, deadline_in(wait_)));
        wait_ = std::min(wait_ * 2, 500ms);
        return std::chrono::steady_clock::now() < deadline_;
    }

  private:
    Deadline deadline_;
    std::chrono::milliseconds wait_ = 10ms;
};

bool nobody_answered(const Error& error) {
    return error == Errc::unavailable || error == Errc::deadline_exceeded;
}

// The lead is the first of the workers.
std::string lead_name(const wire::StatusReply& status) {
    if (status.workers().empty()) return "the lead";
    const wire::WorkerStatus& worker = status.workers(0);
    return fmt::format("worker {} (rank 0, pid {} on host {})", worker.worker(), worker.process_id(), worker.host());
}

bool says_dead(const wire::StatusReply& status, WorkerId lead) {
    return std::ranges::any_of(status.workers(), [lead](const wire::WorkerStatus& worker) {
        return worker.worker() == lead.value && !worker.alive();
    });
}

// What the channel says of itself has the endpoint in it; who that was is said here. The lead's own answers stay as they are.
Result<comm::Frame> named(Result<comm::Frame> reply, const Lead& lead) {
    if (reply || reply.error().message.find(lead.channel->endpoint().to_string()) == std::string::npos) return reply;
    return Error{reply.error().code, fmt::format("{}, which leads the grid: {}", lead.name, reply.error().message)};
}

}  // namespace

Result<comm::Frame> checked_type(Result<comm::Frame> reply, MessageType expected) {
    if (!reply || reply->header.type == expected) return reply;
    return {Errc::corrupt,
            fmt::format("the answer is a {} frame where {} belongs; do client and cluster have one version?",
                        comm::name_of(reply->header.type), comm::name_of(expected))};
}

ClusterLink::ClusterLink(comm::Endpoint coordinator) : coordinator_(io_, std::move(coordinator)) {}

Result<comm::Frame> ClusterLink::call_coordinator(const ClientRequest& request, Deadline deadline) {
    Backoff backoff(deadline);
    while (true) {
        auto reply = coordinator_.call(request.type, 0, request.message, request.payload, deadline);
        bool again = request.repeat == Repeat::if_lost && !reply && reply.error() == Errc::unavailable;
        if (!again || !backoff.pause()) return checked_type(std::move(reply), request.reply);
    }
}

Result<wire::StatusReply> ClusterLink::status(Deadline deadline) {
    return unpacked<wire::StatusReply>(call_coordinator({.type = MessageType::status,
                                                         .reply = MessageType::status_reply,
                                                         .message = comm::pack(wire::StatusRequest()),
                                                         .repeat = Repeat::if_lost},
                                                        deadline));
}

Result<Lead> ClusterLink::lead(Deadline deadline) {
    if (auto known = known_lead()) return *known;
    Backoff backoff(deadline);
    while (true) {
        auto status = this->status(deadline);
        if (status && status->ready()) return take_up(*status);
        if (!status && !nobody_answered(status.error())) return status.error();
        if (!status)
            return {Errc::unavailable,
                    fmt::format("no answer from a coordinator at {}: {}", coordinator_name(), status.error().message)};
        if (!backoff.pause())
            return {Errc::unavailable, fmt::format("the cluster of the coordinator at {} was not ready in time: {}",
                                                   coordinator_name(), status->not_ready_because())};
    }
}

Result<comm::Frame> ClusterLink::call_lead(const ClientRequest& request, Deadline deadline) {
    Backoff backoff(deadline);
    while (true) {
        auto lead = this->lead(deadline);
        if (!lead) return lead.error();
        auto reply = call_lead(*lead, request, deadline);
        bool lost = !reply && (reply.error() == Errc::unavailable || reply.error() == Errc::stale_generation);
        if (!lost || request.repeat == Repeat::never || !backoff.pause()) return reply;
    }
}

Result<comm::Frame> ClusterLink::call_lead(const Lead& lead, const ClientRequest& request, Deadline deadline) {
    auto reply = lead.channel->call(request.type, lead.generation.value, request.message, request.payload, deadline,
                                    {kWatchPeriod, [&] { return replaced(lead); }});
    if (!reply && (nobody_answered(reply.error()) || reply.error() == Errc::stale_generation)) forget(lead);
    return checked_type(named(std::move(reply), lead), request.reply);
}

// Set where the coordinator finds the lead dead, or has another generation by now. A coordinator that does not answer
// says nothing about the lead.
std::optional<Error> ClusterLink::replaced(const Lead& lead) {
    auto status = this->status(deadline_in(kWatchPeriod));
    if (!status) return std::nullopt;
    const bool same = status->generation() == lead.generation.value;
    if (same && !says_dead(*status, lead.worker)) return std::nullopt;
    forget(lead);
    if (same) return Error{Errc::peer_lost, status->not_ready_because()};
    const std::string why = status->last_loss().empty() ? "" : " (" + status->last_loss() + ")";
    return Error{
        Errc::stale_generation,
        fmt::format(
            "generation {} has been formed while a call to generation {} waited{}; whether it was carried out is "
            "not known",
            status->generation(), lead.generation.value, why)};
}

std::optional<Lead> ClusterLink::known_lead() {
    std::lock_guard lock(mutex_);
    return lead_;
}

Result<Lead> ClusterLink::take_up(const wire::StatusReply& status) {
    auto endpoint = comm::parse_endpoint(status.lead_endpoint());
    if (!endpoint) return {Errc::corrupt, "the coordinator's answer names no lead: " + endpoint.error().message};
    std::optional<Lead> previous;  // its channel is destroyed after the lock is given back
    std::lock_guard lock(mutex_);
    bool same = lead_ && lead_->generation.value == status.generation() &&
                lead_->channel->endpoint().to_string() == endpoint->to_string();
    if (same) return *lead_;  // another thread was faster
    auto channel = std::make_shared<comm::Channel>(io_, *endpoint, comm::Channel::Options{.ring = true});
    auto tensors = SharedTensors::make(*channel);
    previous = std::exchange(lead_, Lead{.channel = std::move(channel),
                                         .generation = Generation{status.generation()},
                                         .worker = {status.workers().empty() ? 0 : status.workers(0).worker()},
                                         .tensors = std::move(tensors),
                                         .name = lead_name(status)});
    return *lead_;
}

void ClusterLink::forget(const Lead& lead) {
    std::optional<Lead> forgotten;  // destroyed after the lock is given back
    std::lock_guard lock(mutex_);
    if (lead_ && lead_->channel == lead.channel) forgotten = std::exchange(lead_, std::nullopt);
}

}  // namespace kvgrid
