#pragma once

#include <cstdint>
#include <span>

#include "core/model_spec.h"
#include "core/result.h"
#include "core/sharding.h"
#include "core/window.h"

namespace kvgrid::coordinator {

inline constexpr std::int64_t kTokensMax = std::int64_t{1} << 40;

// A sequence that somebody wants to open.
struct ExpectedSequence {
    std::int64_t tokens = 0;  // at most kTokensMax
    Window window;            // of the sequence, beside those of the model's layers
};

// Pages that the sequence takes on one worker of a head part, at the most: on the sequence part that gets the most of
// them, which depends on an id that is not given yet. Exact where no layer slides; a sliding layer holds its sinks and
// its window, and the window may begin and end in the middle of a page.
std::int64_t pages_needed(const ModelSpec& spec, const GridShape& grid, int head_part,
                          const ExpectedSequence& expected);

// Whether the sequence has room now. It says nothing about later: other sequences grow too, and only a step reserves.
//
//   Input   free_pages [rank]   of this model, as last reported
//   Errors  no_room: and how many tokens would fit.
Status admit(const ModelSpec& spec, const GridShape& grid, std::span<const std::int64_t> free_pages,
             const ExpectedSequence& expected);

// The most tokens that `admit` would let in, a multiple of the page size; kTokensMax if a window makes any number fit.
std::int64_t tokens_that_fit(const ModelSpec& spec, const GridShape& grid, std::span<const std::int64_t> free_pages,
                             const ExpectedSequence& expected);

}  // namespace kvgrid::coordinator
