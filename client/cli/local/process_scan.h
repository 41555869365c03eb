#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "core/clock.h"

namespace kvgrid::cli {

// The processes, this one left out, with `text` in their command line. Zombies have none and are not found.
std::vector<pid_t> processes_naming(const std::string& text);

// Waits until there are none, killing (SIGKILL) those that there are; returns the ones that are left at the deadline.
// `text` must be one that nobody else's process can have: a path of a directory made for the purpose. Fatal for anything else.
std::vector<pid_t> kill_processes_naming(const std::string& text, Deadline deadline);

}  // namespace kvgrid::cli
