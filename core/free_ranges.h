#pragma once

#include <cstddef>
#include <map>
#include <optional>

namespace kvgrid {

// Which parts of something linear are free: first fit, and neighbours that are given back grow together.
class FreeRanges {
  public:
    // The first of `count` consecutive ones; nothing where no free range is so long.
    std::optional<std::size_t> take(std::size_t count);
    // What was taken, or what is new.
    void give_back(std::size_t first, std::size_t count);

  private:
    std::map<std::size_t, std::size_t> ranges_;  // first -> count, no two adjacent
};

}  // namespace kvgrid
