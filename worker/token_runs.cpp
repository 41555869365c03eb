#include "worker/token_runs.h"

#include <algorithm>

namespace kvgrid::worker {

namespace {

template <class Visit>
void for_each_run(std::int64_t first_token, std::int64_t token_count, int spread, const GridShape& grid,
                  int sequence_part, Visit visit) {
    const std::int64_t end = first_token + token_count;
    const std::int64_t first_page = first_token / kPageTokens;
    // From one page of this part to the next.
    const int parts = grid.sequence_parts;
    std::int64_t page =
        first_page + ((sequence_part - sequence_part_of_page(first_page, spread, grid)) + parts) % parts;
    for (; page * kPageTokens < end; page += parts) {
        const std::int64_t begin = std::max(first_token, page * kPageTokens);
        visit(TokenRun{begin, static_cast<int>(std::min(end, (page + 1) * kPageTokens) - begin)});
    }
}

}  // namespace

std::vector<TokenRun> token_runs_of_part(std::int64_t first_token, std::int64_t token_count, int spread,
                                         const GridShape& grid, int sequence_part) {
    std::vector<TokenRun> runs;
    for_each_run(first_token, token_count, spread, grid, sequence_part, [&](TokenRun run) { runs.push_back(run); });
    return runs;
}

std::int64_t tokens_of_part(std::int64_t first_token, std::int64_t token_count, int spread, const GridShape& grid,
                            int sequence_part) {
    std::int64_t tokens = 0;
    for_each_run(first_token, token_count, spread, grid, sequence_part,
                 [&](TokenRun run) { tokens += run.token_count; });
    return tokens;
}

}  // namespace kvgrid::worker
