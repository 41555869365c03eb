#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/thread_pool.h"

namespace kvgrid::bench {

// All cores, or KVGRID_THREADS of them.
int thread_count();

// The fastest of all turns so far, in bytes per second. A turn takes as long as one pass over the memory.
class ReadSpeed {
  public:
    // Plain vector loads of everything, by all threads at once. Turns differ: each thread reads its share as one sequential stream, or as
    // two or four that advance together; the best counts.
    void read(const std::byte* base, std::size_t bytes, kernels::ThreadPool& threads);

    // The same for pages of `page_bytes` in random order, one stream.
    void read_random_pages(const std::byte* base, std::size_t bytes, std::size_t page_bytes,
                           kernels::ThreadPool& threads);

    double best() const { return best_; }
    double best_one_stream() const { return best_one_stream_; }
    double best_random() const { return best_random_; }

  private:
    int turn_ = 0;
    double best_ = 0, best_one_stream_ = 0, best_random_ = 0;
};

// Copies by memcpy, a share per thread; bytes copied per second, each counted once.
double copy_speed(std::byte* target, const std::byte* source, std::size_t bytes, kernels::ThreadPool& threads);

// How much of this process's memory lies in huge pages; 0 where the system does not say.
std::size_t huge_page_bytes();

}  // namespace kvgrid::bench
