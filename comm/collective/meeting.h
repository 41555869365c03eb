#pragma once

#include "comm/collective/collective.h"

namespace kvgrid::comm {

// Where ranks that are threads of one process wait for each other around what they queue on their GPUs: kernels that wait for other ranks must
// all be queued before anybody takes memory or loads a kernel, since that waits for all kernels of the GPU. Ranks with processes of their own
// need not meet.
class Meeting {
  public:
    explicit Meeting(Collective* control) : control_(control) {}

    Status meet(Deadline deadline) const { return control_ == nullptr ? Status() : control_->barrier(deadline); }

  private:
    Collective* control_;
};

}  // namespace kvgrid::comm
