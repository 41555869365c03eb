#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvgrid::cli {

// Bytes that new programs can have without swapping: the least of the kernel's estimate and the limits of this process' cgroup. Nothing
// where the kernel does not say.
std::optional<std::uint64_t> available_memory_bytes();

// "MemAvailable:   123 kB" in the text of /proc/meminfo, in bytes.
std::optional<std::uint64_t> mem_available_in(std::string_view meminfo);

}  // namespace kvgrid::cli
