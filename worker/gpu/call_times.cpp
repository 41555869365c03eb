#include "worker/gpu/call_times.h"

#include <utility>

namespace kvgrid::worker {

void CallTimes::begin(const GpuStream& stream, bool is_short) {
    is_measuring_ = !is_short || std::exchange(is_first_, false) || not_measured_ + 1 == kShortMeasured;
    if (!is_measuring_) {
        ++not_measured_;
        return;
    }
    std::unique_ptr<Call>& call = calls_.at(count_);
    if (!call) call = std::make_unique<Call>();
    call->stands_for = is_short ? 1 + std::exchange(not_measured_, 0) : 1;
    call->begun.record(stream);
}

void CallTimes::end(const GpuStream& stream) {
    if (!is_measuring_) return;
    calls_.at(count_)->ended.record(stream);
    ++count_;
}

std::chrono::nanoseconds CallTimes::take() {
    std::chrono::nanoseconds sum{0};
    for (std::size_t i = 0; i < count_; ++i) sum += calls_[i]->stands_for * calls_[i]->ended.since(calls_[i]->begun);
    count_ = 0;
    return sum;
}

}  // namespace kvgrid::worker
