#include "comm/rpc/pending_calls.h"

#include <utility>

namespace kvgrid::comm {

std::uint64_t PendingCalls::add(Deadline deadline, Callback done) {
    const std::uint64_t request = next_request_++;
    calls_.emplace(request, Entry{Call{std::move(done)}, deadlines_.emplace(deadline, request)});
    return request;
}

void PendingCalls::mark_sent(std::uint64_t request, Call::Sent way) {
    if (const auto found = calls_.find(request); found != calls_.end()) found->second.call.sent = way;
}

std::optional<PendingCalls::Call> PendingCalls::take(std::uint64_t request) {
    const auto found = calls_.find(request);
    if (found == calls_.end()) return std::nullopt;
    deadlines_.erase(found->second.deadline);
    Call call = std::move(found->second.call);
    calls_.erase(found);
    return call;
}

std::vector<PendingCalls::Call> PendingCalls::take_expired(TimePoint now) {
    std::vector<Call> expired;
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
        expired.push_back(std::move(*take(deadlines_.begin()->second)));
    }
    return expired;
}

std::vector<PendingCalls::Call> PendingCalls::take_sent() {
    std::vector<std::uint64_t> requests;
    for (const auto& [request, entry] : calls_) {
        if (entry.call.sent != Call::Sent::no) requests.push_back(request);
    }
    std::vector<Call> sent;
    for (const std::uint64_t request : requests) sent.push_back(std::move(*take(request)));
    return sent;
}

std::vector<PendingCalls::Call> PendingCalls::take_all() {
    return take_expired(Deadline::max());
}

std::optional<Deadline> PendingCalls::next_deadline() const {
    if (deadlines_.empty()) return std::nullopt;
    return deadlines_.begin()->first;
}

}  // namespace kvgrid::comm
