#pragma once

#include "kernels/merge_parts.h"

namespace kvgrid::kernels {

// The promises that merge_parts.h asks of its callers, about the partials and about `merged`. Throw
// std::invalid_argument with the first one broken.
void check_parts(const MergeParts& work);
void check_merged(const MergeParts& work);

}  // namespace kvgrid::kernels
