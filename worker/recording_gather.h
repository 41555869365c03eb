#pragma once

#include <string>
#include <vector>

#include "comm/collective/collective.h"
#include "worker/span_recorder.h"

namespace kvgrid::worker {

struct RankRecording {
    std::string host;
    int process_id = 0;
    SpanRecorder::Recording recording;
};

// What all ranks have recorded, by rank, on the root; nothing elsewhere. Called by every rank.
//
//   Clocks  ranks of one host share theirs. Another host's spans are moved by what the clocks differed by at an all-reduce: as exact as
//           that is simultaneous (some 0.1 ms over a network).
Result<std::vector<RankRecording>> gather_recordings(comm::Collective& collective, SpanRecorder& recorder, int root,
                                                     Deadline deadline);

}  // namespace kvgrid::worker
