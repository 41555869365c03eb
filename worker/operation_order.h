#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "worker/operation.h"

namespace kvgrid::worker {

// A lead's operations in the order of their numbers. Those without a payload may overtake others on their way.
class OperationOrder {
  public:
    static constexpr std::size_t kEarlyMax = 65'536;  // that wait for one before them

    // What can be applied now; nothing while one before it has not come. `corrupt`: it has come before, or too many wait.
    Result<std::vector<Operation>> take(Operation operation) {
        const std::uint64_t number = operation.number;
        if (number <= last_ || early_.size() >= kEarlyMax || !early_.emplace(number, std::move(operation)).second) {
            return {Errc::corrupt, fmt::format("the lead sent operation {} after operation {}", number, last_)};
        }
        std::vector<Operation> next;
        while (!early_.empty() && early_.begin()->first == last_ + 1) {
            ++last_;
            next.push_back(std::move(early_.extract(early_.begin()).mapped()));
        }
        return next;
    }

  private:
    std::uint64_t last_ = 0;
    std::map<std::uint64_t, Operation> early_;
};

}  // namespace kvgrid::worker
