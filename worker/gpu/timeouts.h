#pragma once

#include <chrono>

namespace kvgrid::worker {

// No work of one call keeps a GPU busy for this long: after it the GPU counts as stuck.
inline constexpr std::chrono::milliseconds kGpuPatience{60'000};

}  // namespace kvgrid::worker
