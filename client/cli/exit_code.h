#pragma once

#include <span>

#include "core/result.h"

namespace kvgrid::cli {

// Of every command; exit_codes() says what they mean.
enum class ExitCode {
    done = 0,
    failed = 1,
    usage = 2,
    unreachable = 3,
    refused = 4,
    degraded = 5,
    interrupted = 130,
};

struct ExitCodeMeaning {
    ExitCode code;
    const char* meaning;
};
// For the help and the manual.
std::span<const ExitCodeMeaning> exit_codes();

ExitCode exit_code_of(const Error& error);

}  // namespace kvgrid::cli
