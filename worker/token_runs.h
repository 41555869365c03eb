#pragma once

#include <cstdint>
#include <vector>

#include "core/sharding.h"

namespace kvgrid::worker {

// Consecutive tokens of a sequence that lie in one page.
struct TokenRun {
    std::int64_t first_token;
    int token_count;

    std::int64_t page() const { return first_token / kPageTokens; }
    int slot() const { return static_cast<int>(first_token % kPageTokens); }
};

// The tokens first_token ... first_token + token_count - 1, cut at page borders; only the pages that live on `sequence_part`.
std::vector<TokenRun> token_runs_of_part(std::int64_t first_token, std::int64_t token_count, int spread,
                                         const GridShape& grid, int sequence_part);

// How many tokens those runs have, without making them.
std::int64_t tokens_of_part(std::int64_t first_token, std::int64_t token_count, int spread, const GridShape& grid,
                            int sequence_part);

}  // namespace kvgrid::worker
