#include "worker/page_pool.h"

#include <fmt/format.h>

namespace kvgrid::worker {

PagePool::PagePool(std::uint32_t capacity) : free_pages_(capacity), holders_(capacity, 0), reserved_(capacity, false) {
    for (std::uint32_t i = 0; i < capacity; ++i) free_pages_[i] = capacity - 1 - i;
    counts_.capacity = counts_.free = capacity;
}

Result<std::vector<PageId>> PagePool::reserve(std::size_t count) {
    if (count > free_pages_.size()) {
        return {Errc::no_room, fmt::format("needs {} pages, {} of {} are free", count, counts_.free, counts_.capacity)};
    }
    std::vector<PageId> pages(free_pages_.rbegin(), free_pages_.rbegin() + static_cast<std::ptrdiff_t>(count));
    free_pages_.resize(free_pages_.size() - count);
    for (PageId page : pages) {
        holders_[page] = 1;
        reserved_[page] = true;
    }
    counts_.free -= count;
    counts_.reserved += count;
    check();
    return pages;
}

void PagePool::commit(PageId page) {
    if (!reserved_[page]) fatal(fmt::format("page {} was committed without being reserved", page));
    reserved_[page] = false;
    --counts_.reserved;
    ++counts_.used;
    ++counts_.references;
    check();
}

void PagePool::share(PageId page) {
    if (holders_[page] == 0 || reserved_[page]) fatal(fmt::format("page {} was shared without being used", page));
    if (++holders_[page] == 2) ++counts_.shared;
    ++counts_.references;
    check();
}

void PagePool::give_back(PageId page) {
    if (holders_[page] == 0) fatal(fmt::format("page {} was given back twice", page));
    --holders_[page];
    if (!reserved_[page]) --counts_.references;
    if (holders_[page] == 1) --counts_.shared;
    if (holders_[page] == 0) {
        if (reserved_[page]) {
            reserved_[page] = false;
            --counts_.reserved;
        } else {
            --counts_.used;
        }
        free_pages_.push_back(page);
        ++counts_.free;
    }
    check();
}

void PagePool::check() const {
    if (!counts_.conserved() || counts_.free != free_pages_.size()) {
        fatal(fmt::format("pages are not conserved: {} free + {} used + {} reserved of {}", counts_.free, counts_.used,
                          counts_.reserved, counts_.capacity));
    }
}

bool PagePool::recount_agrees() const {
    PageCounts counted;
    counted.capacity = holders_.size();
    for (std::size_t page = 0; page < holders_.size(); ++page) {
        if (holders_[page] == 0)
            ++counted.free;
        else if (reserved_[page])
            ++counted.reserved;
        else
            ++counted.used;
        if (holders_[page] > 1) ++counted.shared;
        if (!reserved_[page]) counted.references += holders_[page];
    }
    return counted.conserved() && counted.free == counts_.free && counted.used == counts_.used &&
           counted.reserved == counts_.reserved && counted.shared == counts_.shared &&
           counted.references == counts_.references;
}

}  // namespace kvgrid::worker
