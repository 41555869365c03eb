#pragma once

#include <string>

#include "client/cli/replay/replay.h"

namespace kvgrid::cli {

// A report for people: a line of what was done, and a table of what was found.
std::string replay_text(const ReplayReport& report);

// The same for programs: one JSON object, "format": "kvgrid.replay", "format_version": 1.
std::string replay_json(const ReplayReport& report);

}  // namespace kvgrid::cli
