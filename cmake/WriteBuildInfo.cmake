# Writes OUTPUT from what git says of SOURCE, or from KVGRID_COMMIT of the environment where a copy of the tree has no history; touches it only
# where that has changed, so that an unchanged tree rebuilds nothing.
set(commit $ENV{KVGRID_COMMIT})
if(NOT commit)
    execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
                    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(failed)
        set(commit unknown)
    endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [[
#include "core/build_info.h"

namespace kvgrid {

const char* build_commit() {
    return "@commit@";
}

const char* build_compiler() {
    return "@COMPILER@";
}

}  // namespace kvgrid
]])
