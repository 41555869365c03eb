#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "client/cli/exit_code.h"

namespace kvgrid::cli {

// How a command talks: results on standard output; progress, news and errors on standard error.
struct OutputOptions {
    bool json = false;
    bool quiet = false;
    bool no_color = false;
};

// Whether standard output may be coloured: it is a terminal, and neither --no-color nor NO_COLOR (https://no-color.org) nor a
// TERM that cannot says otherwise.
bool may_color(const OutputOptions& options);

// One object on standard output, with "format": "kvgrid.NAME" and its version first to be looked at. Fields are only ever added within
// a version.
void print_json(const char* name, nlohmann::json object, int format_version = 1);

struct Failure {
    std::string message;
    std::string code;  // an Errc's name, or "usage"
    std::string next;  // the command that may help, or empty
    ExitCode exit_code;
};

// "kvgrid: CODE: MESSAGE" and "try: NEXT", or the object "kvgrid.error".
void print_error(const Failure& failure, const OutputOptions& options);

}  // namespace kvgrid::cli
