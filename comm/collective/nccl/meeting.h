#pragma once

// For the .cpp files of the NCCL back end only.

#include "comm/collective/collective.h"

namespace kvgrid::comm {

// Where ranks that are threads of one process wait for each other; others need not. See NcclWorld::Options::share_process.
class Meeting {
  public:
    explicit Meeting(Collective* control) : control_(control) {}

    Status meet(Deadline deadline) const { return control_ == nullptr ? Status() : control_->barrier(deadline); }

  private:
    Collective* control_;
};

}  // namespace kvgrid::comm
