#pragma once

#include <cstdint>

namespace kvgrid::cli {

// Bytes a second that all cores of this host together read from memory: the best of a few passes over more than the caches hold. Takes
// about half a second, and that much memory meanwhile.
double measure_memory_bandwidth(std::uint64_t cache_bytes);

}  // namespace kvgrid::cli
