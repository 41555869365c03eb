#pragma once

#include "comm/wire/kvgrid.pb.h"
#include "worker/operation.h"

namespace kvgrid::worker {

// Bounds what a recording can cost: `invalid_argument` names them.
Status check_start_trace(const wire::StartTraceRequest& request);
StartTrace start_trace_from(const wire::StartTraceRequest& request);

wire::TraceReply trace_reply(const std::vector<RankRecording>& by_rank);

}  // namespace kvgrid::worker
