#pragma once

#include <cstddef>
#include <cstdint>

#include "core/result.h"
#include "kernels/page_layout.h"

namespace kvgrid::worker {

// Memory of this host for the pages of one model. The system commits it when a page is first written.
class HostSlab {
  public:
    // `no_room` with the figures if the system refuses the memory.
    static Result<HostSlab> make(std::size_t page_bytes, std::uint32_t page_count);
    ~HostSlab();
    HostSlab(HostSlab&& other) noexcept;
    HostSlab& operator=(HostSlab&& other) noexcept;

    kernels::Slab view() const { return {base_, page_bytes_}; }

  private:
    HostSlab(std::byte* base, std::size_t page_bytes, std::size_t bytes);

    std::byte* base_;
    std::size_t page_bytes_;
    std::size_t bytes_;
};

}  // namespace kvgrid::worker
