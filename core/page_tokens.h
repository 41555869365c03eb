#pragma once

namespace kvgrid {

// Consecutive tokens of one stream in one page. A model may not choose it.
inline constexpr int kPageTokens = 64;

}  // namespace kvgrid
