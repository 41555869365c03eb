#pragma once

#include <string>
#include <vector>

#include "core/result.h"

namespace kvgrid::cli {

// The GPUs of this host that kvgrid-worker can use, by name; it is the worker that is asked, since only it links CUDA.
//
//   Errors  not_found: there is no kvgrid-worker beside this program. deadline_exceeded: it does not answer within 30 s.
Result<std::vector<std::string>> worker_gpus();

// Whether so many workers have to share this host's GPUs. As processes they would take turns on one: they should be threads of one process.
bool must_share_gpus(int workers, const Result<std::vector<std::string>>& gpus);

}  // namespace kvgrid::cli
