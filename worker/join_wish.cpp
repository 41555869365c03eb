#include "worker/join_wish.h"

#include <fmt/format.h>

namespace kvgrid::worker {

Result<JoinWish> parse_join_wish(std::string_view text) {
    if (text == "auto") return JoinWish::best;
    if (text == "pushed") return JoinWish::pushed;
    if (text == "nccl") return JoinWish::gathered;
    if (text == "host") return JoinWish::over_hosts;
    return {Errc::invalid_argument, fmt::format("join is \"{}\": must be auto, pushed, nccl or host", text)};
}

}  // namespace kvgrid::worker
