#include "core/units.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <limits>

namespace kvgrid {

namespace {

struct Unit {
    std::string_view name;
    std::uint64_t bytes;
};

constexpr std::array kUnits = {
    Unit{"", 1},
    Unit{"B", 1},
    Unit{"KiB", std::uint64_t{1} << 10},
    Unit{"MiB", std::uint64_t{1} << 20},
    Unit{"GiB", std::uint64_t{1} << 30},
    Unit{"TiB", std::uint64_t{1} << 40},
    Unit{"kB", 1'000},
    Unit{"MB", 1'000'000},
    Unit{"GB", 1'000'000'000},
    Unit{"TB", 1'000'000'000'000},
};

}  // namespace

Result<std::uint64_t> parse_bytes(std::string_view text) {
    const auto refuse = [&](const char* rule) {
        return Result<std::uint64_t>(Errc::invalid_argument, fmt::format("\"{}\" is no size: {}", text, rule));
    };
    std::uint64_t count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc{}) return refuse("must begin with a whole number below 2^64");
    std::string_view name(end, text.data() + text.size() - end);
    if (name.starts_with(' ')) name.remove_prefix(1);
    for (const Unit& unit : kUnits) {
        if (unit.name != name) continue;
        if (count > std::numeric_limits<std::uint64_t>::max() / unit.bytes) return refuse("is over 2^64 bytes");
        return count * unit.bytes;
    }
    return refuse("the unit must be B, KiB, MiB, GiB, TiB, kB, MB, GB or TB");
}

std::string format_bytes(std::uint64_t bytes) {
    static constexpr std::array kNames = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1000 && unit + 1 < kNames.size()) {
        value /= 1024;
        ++unit;
    }
    if (unit == 0) return fmt::format("{} B", bytes);
    return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, kNames[unit]);
}

}  // namespace kvgrid
