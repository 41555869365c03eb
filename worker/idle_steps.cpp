// The part of Lead that ends steps which nobody goes on with. A connection that closes says so at once; one whose host has vanished says
// nothing, and its step would keep its pages for ever.

#include <fmt/format.h>

#include <algorithm>

#include "worker/lead.h"

namespace kvgrid::worker {

namespace {

constexpr std::size_t kRememberedMax = 1024;

}  // namespace

std::unordered_set<StepId> Lead::steps_with_calls() const {
    std::unordered_set<StepId> busy;
    for (const Pending& pending : queue_) busy.insert(pending.step);
    for (const auto& [number, shares] : under_way_) {
        for (const Share& share : shares) busy.insert(share.step);
    }
    return busy;
}

void Lead::abort_idle_steps(TimePoint now, std::chrono::milliseconds idle_max) {
    const std::unordered_set<StepId> busy = steps_with_calls();
    std::vector<StepId> idle;
    for (auto& [id, step] : steps_) {
        if (std::exchange(step.called, false) || busy.contains(id)) step.idle_since = now;
        if (now - step.idle_since >= idle_max) idle.push_back(id);
    }
    for (const StepId id : idle) {
        ++counters_.steps_timed_out;
        timed_out_.push_back({id, idle_max});
        if (timed_out_.size() > kRememberedMax) timed_out_.pop_front();
        abort(id, [](OperationResult) {});
    }
}

Error Lead::why_not_open(StepId id) const {
    const auto found = std::ranges::find(timed_out_, id, &TimedOut::step);
    if (found == timed_out_.end()) return no_such_step(id);
    return {Errc::not_found, fmt::format("step {} was aborted because no call of it came for {} ms: begin it again",
                                         id.value, found->idle_max.count())};
}

}  // namespace kvgrid::worker
