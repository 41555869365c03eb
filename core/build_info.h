#pragma once

namespace kvgrid {

// Of the build that is running, beside kVersion.
const char* build_commit();    // as `git describe` had it ("-dirty": with changes); "unknown" outside a checkout
const char* build_compiler();  // "GNU 12.2.0"

}  // namespace kvgrid
