#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention_product.h"

namespace kvgrid::kernels {

// Prefetches one page while another is multiplied, evenly over the steps of the register kernels, so that memory and arithmetic
// are busy at the same time. A burst would not do: a core has few misses under way, and drops what exceeds them.
class PagePrefetch {
  public:
    // `steps_per_page`: steps of all calls that one page takes.
    PagePrefetch(std::size_t page_bytes, std::int64_t steps_per_page)
        : page_bytes_(page_bytes),
          rate_(static_cast<std::uint32_t>((page_bytes / kLineBytes * kPrefetchOne + steps_per_page - 1) /
                                           steps_per_page)) {}

    // The page that follows the one now begun, and one further ahead, of which only the addresses are looked up: a page of ours is
    // several of the system's, and each look-up is a miss of its own. Both may be null.
    void begin_page(const std::byte* next, const std::byte* far) {
        next_ = next;
        steps_done_ = 0;
        if (far == nullptr) return;
        for (std::size_t byte = 0; byte < page_bytes_; byte += kSystemPageBytes) __builtin_prefetch(far + byte, 0, 2);
    }

    // Gives a call its share of the next page.
    void pace(Product& product) {
        product.prefetch_rate = next_ == nullptr ? 0 : rate_;
        product.prefetch = next_ + steps_done_ * rate_ / kPrefetchOne * kLineBytes;
        steps_done_ += product.steps;
    }

  private:
    static constexpr std::size_t kSystemPageBytes = 4096;

    std::size_t page_bytes_;
    std::uint64_t rate_;
    std::uint64_t steps_done_ = 0;
    const std::byte* next_ = nullptr;
};

}  // namespace kvgrid::kernels
