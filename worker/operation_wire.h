#pragma once

#include "comm/wire/frame.h"
#include "core/result.h"
#include "worker/operation.h"

namespace kvgrid::wire {
class BeginStepRequest;
}

namespace kvgrid::worker {

BeginStep begin_step_from(const wire::BeginStepRequest& request);  // without the step's id

// An operation as the lead sends it to its peers, and back: wire.OperationMessage, with the tensors as the frame's payload.
std::string pack_operation(const Operation& operation);
Result<Operation> unpack_operation(const comm::Frame& frame);

}  // namespace kvgrid::worker
