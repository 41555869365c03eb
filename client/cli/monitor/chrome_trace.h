#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/kvgrid.h"

namespace kvgrid::cli {

// A call of this process's own workload.
struct ClientSpan {
    std::string name;
    std::int64_t start_ns;  // steady_clock's
    std::int64_t end_ns;
};

// A recording in Chrome's trace format, for chrome://tracing and ui.perfetto.dev: a process for each rank and one for the client (if it
// has spans), a track for each thread. Times are microseconds from the first span. What may overlap within a track (calls that wait)
// is written as asynchronous events.
std::string chrome_trace(const GridTrace& trace, const std::vector<ClientSpan>& client);

}  // namespace kvgrid::cli
