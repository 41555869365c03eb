#pragma once

#include <algorithm>
#include <chrono>

namespace kvgrid::comm {

// Whether the waits of one place are so short, as a rule, that asking again and again costs less than sleeping and being woken. A thread
// that is woken on an idle core of a virtual machine comes late by 10 to 100 us, and a layer call waits for several.
//
//   Bounded  a wait that turns out long has cost kPolling of processor time; some of them in a row, and none is polled any more until waits
//            have become short again.
class ShortWaits {
  public:
    static constexpr std::chrono::nanoseconds kPolling = std::chrono::microseconds(200);

    bool worth_polling() const { return typical_ < kPolling; }
    void ended(std::chrono::nanoseconds wait) { typical_ += (std::min(wait, kMost) - typical_) / kMemory; }

  private:
    static constexpr std::chrono::nanoseconds kMost = 4 * kPolling;
    static constexpr int kMemory = 8;  // waits

    std::chrono::nanoseconds typical_{0};
};

}  // namespace kvgrid::comm
