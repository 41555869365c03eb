#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.h"

namespace kvgrid {

// "4GiB", "512 MiB", "1000000", "2GB": a whole number with a binary (KiB ...) or decimal (kB, MB ...) unit, or none for bytes.
Result<std::uint64_t> parse_bytes(std::string_view text);

// "3.02 GiB": three significant digits, binary units.
std::string format_bytes(std::uint64_t bytes);

}  // namespace kvgrid
