#pragma once

#include <functional>
#include <string>

#include "coordinator/call.h"
#include "coordinator/coordinator.h"

namespace kvgrid::coordinator {

// Asks the lead for a reserved sequence and tells: the confirmed record, or an error after which nobody has the sequence (what the grid may hold of it
// is closed there).
struct NewSequence {
    SequenceRecord reserved;
    comm::MessageType type;  // of the message to the lead
    std::string message;
};
using Made = std::function<void(const Result<SequenceRecord>&)>;
void make_in_grid(Coordinator& coordinator, NewSequence wanted, Deadline deadline, Made made);

// Answers the call with the sequence, or the error.
Made answer_with_sequence(const CallPtr& call);

// A sequence that may be forked now, or why none may.
Result<SequenceRecord> fork_source(Coordinator& coordinator, SequenceId id);

// Of a reserved sequence, to be forked from its parent: from the first `tokens` of it, or all (0).
NewSequence forked(const Coordinator& coordinator, SequenceRecord reserved, std::int64_t tokens);

}  // namespace kvgrid::coordinator
