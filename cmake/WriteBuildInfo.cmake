# Writes OUTPUT from what git says of SOURCE; touches it only where that has changed, so that an unchanged tree rebuilds nothing.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
    set(commit unknown)
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
