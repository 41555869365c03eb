#pragma once

#include "core/result.h"

namespace kvgrid::cli {

// Of every command.
enum class ExitCode {
    done = 0,
    failed = 1,       // it ran, and the answer is no; or a defect
    usage = 2,        // the command line is wrong
    unreachable = 3,  // the cluster does not answer
    refused = 4,      // the cluster answered no
    interrupted = 130,
};

ExitCode exit_code_of(const Error& error);

}  // namespace kvgrid::cli
