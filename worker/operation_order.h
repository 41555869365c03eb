#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <map>
#include <utility>

#include "worker/operation.h"

namespace kvgrid::worker {

// A lead's operations in the order of their numbers. Those without a payload may overtake others on their way.
class OperationOrder {
  public:
    static constexpr std::size_t kEarlyMax = 65'536;  // that wait for one before them

    // Gives `apply` what can be applied now, in order: nothing while one before it has not come. `corrupt`: it has come before, or too many wait.
    template <class Apply>
    Status take(Operation operation, const Apply& apply) {
        const std::uint64_t number = operation.number;
        if (number == last_ + 1) {
            ++last_;
            apply(std::move(operation));
        } else if (number <= last_ || early_.size() >= kEarlyMax ||
                   !early_.emplace(number, std::move(operation)).second) {
            return {Errc::corrupt, fmt::format("the lead sent operation {} after operation {}", number, last_)};
        }
        while (!early_.empty() && early_.begin()->first == last_ + 1) {
            ++last_;
            apply(std::move(early_.extract(early_.begin()).mapped()));
        }
        return {};
    }

  private:
    std::uint64_t last_ = 0;
    std::map<std::uint64_t, Operation> early_;
};

}  // namespace kvgrid::worker
