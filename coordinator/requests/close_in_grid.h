#pragma once

#include <functional>

#include "coordinator/coordinator.h"

namespace kvgrid::coordinator {

// Closes a sequence in the grid and erases its record; a sequence that the grid does not have is closed. After an error the record is there, and closing
// can be tried again.
void close_in_grid(Coordinator& coordinator, SequenceId id, Deadline deadline, std::function<void(Status)> closed);

}  // namespace kvgrid::coordinator
