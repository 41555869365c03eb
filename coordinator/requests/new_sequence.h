#pragma once

#include <string>

#include "coordinator/call.h"
#include "coordinator/coordinator.h"

namespace kvgrid::coordinator {

// Asks the lead for a reserved sequence and answers the call: with the confirmed record, or with an error after which
// nobody has the sequence (what the grid may hold of it is closed there).
struct NewSequence {
    SequenceRecord reserved;
    comm::MessageType type;  // of the message to the lead
    std::string message;
};
void make_in_grid(Coordinator& coordinator, NewSequence wanted, const CallPtr& call);

}  // namespace kvgrid::coordinator
