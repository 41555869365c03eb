#include "coordinator/admission.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvgrid::coordinator {

namespace {

std::int64_t ceil_div(std::int64_t value, std::int64_t by) {
    return (value + by - 1) / by;
}

// Pages of one stream on the sequence part that gets the most of them: consecutive pages go round the parts.
std::int64_t stream_pages(const Window& kept, std::int64_t tokens, int sequence_parts) {
    const std::int64_t all = ceil_div(ceil_div(tokens, kPageTokens), sequence_parts);
    if (!kept.slides() || kept.tokens >= tokens || kept.sinks >= tokens) return all;
    const std::int64_t sink_pages = ceil_div(kept.sinks, kPageTokens);
    const std::int64_t window_pages = ceil_div(kept.tokens - 1, kPageTokens) + 1;  // begins and ends anywhere
    return std::min(all, ceil_div(sink_pages, sequence_parts) + ceil_div(window_pages, sequence_parts));
}

bool fits(const ModelSpec& spec, const GridShape& grid, std::span<const std::int64_t> free_pages,
          const ExpectedSequence& expected) {
    for (int rank = 0; rank < grid.workers(); ++rank) {
        if (pages_needed(spec, grid, grid.head_part(rank), expected) > free_pages[rank]) return false;
    }
    return true;
}

}  // namespace

std::int64_t pages_needed(const ModelSpec& spec, const GridShape& grid, int head_part,
                          const ExpectedSequence& expected) {
    std::int64_t pages = 0;
    for (const int kv_layer : spec.kv_layers()) {
        pages +=
            stream_pages(window_of_kv_layer(spec, kv_layer, expected.window), expected.tokens, grid.sequence_parts);
    }
    return pages * kv_heads_of_part(spec, grid, head_part).count;
}

Status admit(const ModelSpec& spec, const GridShape& grid, std::span<const std::int64_t> free_pages,
             const ExpectedSequence& expected) {
    if (fits(spec, grid, free_pages, expected)) return {};
    return {Errc::no_room,
            fmt::format("a sequence of {} tokens has no room in model {} now: at most {} tokens would fit now",
                        expected.tokens, spec.name, tokens_that_fit(spec, grid, free_pages, expected))};
}

std::int64_t tokens_that_fit(const ModelSpec& spec, const GridShape& grid, std::span<const std::int64_t> free_pages,
                             const ExpectedSequence& expected) {
    const auto pages_fit = [&](std::int64_t pages) {
        ExpectedSequence smaller = expected;
        smaller.tokens = pages * kPageTokens;
        return fits(spec, grid, free_pages, smaller);
    };
    // More tokens never take fewer pages, so the border can be halved in on: `fitting` fits, `beyond` does not.
    std::int64_t fitting = 0;
    std::int64_t beyond = kTokensMax / kPageTokens;
    if (pages_fit(beyond)) return kTokensMax;
    while (beyond - fitting > 1) {
        const std::int64_t middle = fitting + (beyond - fitting) / 2;
        (pages_fit(middle) ? fitting : beyond) = middle;
    }
    return fitting * kPageTokens;
}

}  // namespace kvgrid::coordinator
