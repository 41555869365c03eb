#pragma once

#include <cstdint>
#include <functional>

#include "core/dtype.h"
#include "kernels/cuda/device_span.h"

namespace kvgrid::bench {

// About normal numbers in the dtype (bf16 or f16); the same for the same seed.
void fill_with_normal(kernels::DeviceSpan<std::byte> memory, Dtype dtype, std::uint64_t seed);

// Bytes per second of plain 16-byte loads of that many bytes of fresh memory; the best of several turns.
double read_bytes_per_second(std::size_t bytes);

struct Replay {
    int calls = 1;  // captured in one graph
    int turns = 30;
    double warm_up_ms = 100;  // of replays; an idle GPU takes its time to reach its clocks
    double rest_ms = 0;       // before that
};
// Before the GPU comes to its power limit, and slows down.
inline constexpr Replay kRested{.turns = 10, .warm_up_ms = 3, .rest_ms = 500};
// The median time of one call, in microseconds, by replaying a graph of calls; warmed up beforehand.
double median_us(const std::function<void(kernels::Stream)>& call, const Replay& replay);

// |a - b| / |b| over f32 arrays of equal size.
double relative_difference(kernels::DeviceSpan<const float> a, kernels::DeviceSpan<const float> b);

}  // namespace kvgrid::bench
