#include "core/free_ranges.h"

#include <algorithm>
#include <iterator>

namespace kvgrid {

std::optional<std::size_t> FreeRanges::take(std::size_t count) {
    const auto found = std::ranges::find_if(ranges_, [count](const auto& range) { return range.second >= count; });
    if (found == ranges_.end()) return std::nullopt;
    const auto [first, available] = *found;
    ranges_.erase(found);
    if (available > count) ranges_.emplace(first + count, available - count);
    return first;
}

void FreeRanges::give_back(std::size_t first, std::size_t count) {
    if (count == 0) return;
    const auto next = ranges_.lower_bound(first);
    if (next != ranges_.begin()) {
        const auto before = std::prev(next);
        if (before->first + before->second == first) {
            first = before->first;
            count += before->second;
            ranges_.erase(before);
        }
    }
    if (next != ranges_.end() && first + count == next->first) {
        count += next->second;
        ranges_.erase(next);
    }
    ranges_.emplace(first, count);
}

}  // namespace kvgrid
