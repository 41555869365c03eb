#pragma once

#include <vector>

#include "kernels/cuda/decode.h"

namespace kvgrid::kernels {

// What decode() makes of a batch that it joins in its tail with another rank's, whose rows are the same: what that rank has of the same heads
// (sequence parts), or of as many others (head parts). [row_count, heads of all parts, head_dim]; what no rank wrote is 0xff. Nothing where the rows do not
// fit, or cannot be joined so. The ranks come one after the other on one GPU, several times.
std::vector<std::byte> decode_with_twin(const Decode& call, bool twin_has_other_heads);

}  // namespace kvgrid::kernels
