#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "client/kvgrid.h"

namespace kvgrid::cli {

struct TraceRecordingOptions {
    int steps = 1;
    bool own_steps = false;                     // run them here, too; else the next ones that anybody runs are recorded
    std::chrono::milliseconds timeout{30'000};  // for the steps to come
    int spans_max = 20'000;                     // of each process
    std::function<bool()> interrupted;          // asked while waiting; may be empty
};

struct RecordedTrace {
    std::string json;  // Chrome's trace format
    int steps = 0;     // that have ended: fewer than asked for where the time was over
    std::size_t span_count = 0;
    std::uint64_t dropped = 0;
};

// Records steps of a grid. `deadline_exceeded` if none ended in time, so that there is nothing to see.
Result<RecordedTrace> record_trace(Client& client, const TraceRecordingOptions& options);

}  // namespace kvgrid::cli
