#include "client/cli/demo/demo_tensors.h"

#include <cmath>

#include "analysis/trace.h"

namespace kvgrid::cli {

namespace {

// SplitMix64 (Steele, Lea and Flood, 2014): one step, and what it gives out.
std::uint64_t next(std::uint64_t& state) {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

// Nearly normal: the sum of four uniform 16-bit numbers, centred; its standard deviation is 65536 / sqrt(3).
float nearly_normal(std::uint64_t bits) {
    const int sum = static_cast<int>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return static_cast<float>(sum - 2 * 65535) * (1.7320508f / 65536.0f);
}

}  // namespace

std::vector<std::byte> random_tensor(std::uint64_t seed, std::size_t count, float deviation, Dtype dtype) {
    std::vector<float> values(count);
    for (float& value : values) value = nearly_normal(next(seed)) * deviation;
    return analysis::bytes_of(values, dtype);
}

std::uint64_t seed_of(std::span<const std::uint64_t> path) {
    std::uint64_t seed = 0;
    for (const std::uint64_t number : path) {
        seed ^= number;
        seed = next(seed);
    }
    return seed;
}

}  // namespace kvgrid::cli
