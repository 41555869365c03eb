#include "core/result.h"

namespace kvgrid {

const char* name_of(Errc code) {
    switch (code) {
        case Errc::invalid_argument:
            return "invalid_argument";
        case Errc::not_found:
            return "not_found";
        case Errc::already_exists:
            return "already_exists";
        case Errc::no_room:
            return "no_room";
        case Errc::busy:
            return "busy";
        case Errc::wrong_state:
            return "wrong_state";
        case Errc::stale_generation:
            return "stale_generation";
        case Errc::deadline_exceeded:
            return "deadline_exceeded";
        case Errc::unavailable:
            return "unavailable";
        case Errc::peer_lost:
            return "peer_lost";
        case Errc::unsupported:
            return "unsupported";
        case Errc::corrupt:
            return "corrupt";
        case Errc::internal:
            return "internal";
    }
    return "unknown";
}

std::string Error::to_string() const {
    return std::string(name_of(code)) + ": " + message;
}

void fatal(const std::string& what) {
    throw Fatal(what);
}

}  // namespace kvgrid
