#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/result.h"

namespace kvgrid::worker {

using PageId = std::uint32_t;

// How many pages are in each state. `shared` counts those of the used pages that have more than one holder.
struct PageCounts {
    std::uint64_t capacity = 0;
    std::uint64_t free = 0;
    std::uint64_t used = 0;
    std::uint64_t reserved = 0;
    std::uint64_t shared = 0;
    std::uint64_t references = 0;  // holders of the used pages: entries of page lists

    bool conserved() const { return free + used + reserved == capacity && shared <= used; }
};

// Who holds the pages of one model in one worker: a free list, and a reference count for each page. Their memory is the device's.
//
//              reserve           commit            share / give_back
//     free  ------------> reserved ------> used (1) <-----------> used (n)
//       ^                    |              |
//       +---- give_back -----+--------------+
//
//   Invariant  free + used + reserved == capacity, after every call. A page has holders exactly while it is not free.
//   Threads    one at a time.
//   Cost       O(1) for each page named.
class PagePool {
  public:
    explicit PagePool(std::uint32_t capacity);
    PagePool(const PagePool&) = delete;
    PagePool& operator=(const PagePool&) = delete;

    // Takes pages for an open step, each with one holder. All or none: `no_room` takes nothing.
    Result<std::vector<PageId>> reserve(std::size_t count);

    void commit(PageId page);     // reserved -> used
    void share(PageId page);      // one more holder of a used page
    void give_back(PageId page);  // one holder less; the last one frees it

    bool is_shared(PageId page) const { return holders_[page] > 1; }
    bool is_reserved(PageId page) const { return reserved_[page]; }
    PageCounts counts() const { return counts_; }
    std::uint64_t free_count() const { return counts_.free; }

    // Counts every page anew: whether the counts kept along the way are right. O(capacity).
    bool recount_agrees() const;

  private:
    void check() const;

    std::vector<PageId> free_pages_;  // a stack: the page freed last is handed out first
    std::vector<std::uint32_t> holders_;
    std::vector<bool> reserved_;
    PageCounts counts_;
};

}  // namespace kvgrid::worker
