#include "comm/rpc/backoff.h"

#include <algorithm>

namespace kvgrid::comm {

Backoff::Backoff(std::chrono::milliseconds min, std::chrono::milliseconds max, std::uint64_t seed)
    : min_(min), max_(max), next_(min), random_(seed) {}

std::chrono::nanoseconds Backoff::next() {
    const std::chrono::nanoseconds whole = next_;
    next_ = std::min(next_ * 2, max_);
    std::uniform_int_distribution<std::int64_t> part(whole.count() / 2, whole.count());
    return std::chrono::nanoseconds(part(random_));
}

}  // namespace kvgrid::comm
