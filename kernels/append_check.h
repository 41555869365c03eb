#pragma once

#include "kernels/append.h"

namespace kvgrid::kernels {

// The promises that append.h asks of its callers. Throw std::invalid_argument with the first one broken.
// A page's index cannot be checked: a slab does not know its length.
void check_append(const Append& work);
void check_read_pages(const ReadPages& work);

}  // namespace kvgrid::kernels
