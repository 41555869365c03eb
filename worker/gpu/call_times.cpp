#include "worker/gpu/call_times.h"

namespace kvgrid::worker {

void CallTimes::begin(const GpuStream& stream) {
    std::unique_ptr<Call>& call = calls_.at(count_);
    if (!call) call = std::make_unique<Call>();
    call->begun.record(stream);
}

void CallTimes::end(const GpuStream& stream) {
    calls_.at(count_)->ended.record(stream);
    ++count_;
}

std::chrono::nanoseconds CallTimes::take() {
    std::chrono::nanoseconds sum{0};
    for (std::size_t i = 0; i < count_; ++i) sum += calls_[i]->ended.since(calls_[i]->begun);
    count_ = 0;
    return sum;
}

}  // namespace kvgrid::worker
