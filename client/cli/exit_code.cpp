#include "client/cli/exit_code.h"

namespace kvgrid::cli {

ExitCode exit_code_of(const Error& error) {
    switch (error.code) {
        case Errc::unavailable:
        case Errc::deadline_exceeded:
            return ExitCode::unreachable;
        case Errc::invalid_argument:
        case Errc::already_exists:
        case Errc::no_room:
        case Errc::busy:
        case Errc::wrong_state:
        case Errc::stale_generation:
        case Errc::unsupported:
            return ExitCode::refused;
        case Errc::not_found:
        case Errc::peer_lost:
        case Errc::corrupt:
        case Errc::internal:
            break;
    }
    return ExitCode::failed;
}

}  // namespace kvgrid::cli
