#include "worker/host_slab.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace kvgrid::worker {

Result<HostSlab> HostSlab::make(std::size_t page_bytes, std::uint32_t page_count) {
    const std::size_t bytes = page_bytes * page_count;
    // NORESERVE: pages cost memory when they are first written, so a pool may be planned for memory that others still hold.
    void* base = mmap(nullptr, std::max<std::size_t>(bytes, 1), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        return {Errc::no_room,
                fmt::format("the system refused {} bytes for {} pages of {} bytes: {}; give the worker a smaller "
                            "memory budget",
                            bytes, page_count, page_bytes, std::strerror(errno))};
    }
    madvise(base, bytes, MADV_HUGEPAGE);  // fewer TLB misses on long contexts; harmless where it is not supported
    return HostSlab(static_cast<std::byte*>(base), page_bytes, bytes);
}

HostSlab::HostSlab(std::byte* base, std::size_t page_bytes, std::size_t bytes)
    : base_(base), page_bytes_(page_bytes), bytes_(bytes) {}

HostSlab::HostSlab(HostSlab&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), page_bytes_(other.page_bytes_), bytes_(other.bytes_) {}

HostSlab& HostSlab::operator=(HostSlab&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(page_bytes_, other.page_bytes_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

HostSlab::~HostSlab() {
    if (base_) munmap(base_, std::max<std::size_t>(bytes_, 1));
}

}  // namespace kvgrid::worker
