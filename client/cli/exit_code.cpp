#include "client/cli/exit_code.h"

#include <array>

namespace kvgrid::cli {

namespace {

constexpr std::array kMeanings{
    ExitCodeMeaning{ExitCode::done, "done"},
    ExitCodeMeaning{ExitCode::failed, "it ran, and the answer is no; or it failed"},
    ExitCodeMeaning{ExitCode::usage, "the command line or the configuration is wrong"},
    ExitCodeMeaning{ExitCode::unreachable, "the cluster does not answer"},
    ExitCodeMeaning{ExitCode::refused, "the cluster answered no"},
    ExitCodeMeaning{ExitCode::degraded, "the cluster answers, but is not ready"},
    ExitCodeMeaning{ExitCode::interrupted, "interrupted"},
};

}  // namespace

std::span<const ExitCodeMeaning> exit_codes() {
    return kMeanings;
}

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
