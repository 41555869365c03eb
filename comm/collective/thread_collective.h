#pragma once

#include <memory>
#include <vector>

#include "comm/collective/collective.h"

namespace kvgrid::comm {

// The collectives of `size` ranks that are threads of this process; element r is for rank r. The ranks share one mailbox in memory;
// each may be destroyed at any time, which the others see as a peer that does not come.
std::vector<std::unique_ptr<Collective>> make_thread_collectives(int size, Generation generation);

}  // namespace kvgrid::comm
