#include "worker/join_way.h"

#include <fmt/format.h>

namespace kvgrid::worker {

Result<JoinWay> parse_join_way(std::string_view text) {
    if (text == "auto") return JoinWay::best;
    if (text == "pushed") return JoinWay::pushed;
    if (text == "nccl") return JoinWay::gathered;
    if (text == "host") return JoinWay::over_hosts;
    return {Errc::invalid_argument, fmt::format("join is \"{}\": must be auto, pushed, nccl or host", text)};
}

}  // namespace kvgrid::worker
