#pragma once

#include <cstdint>
#include <string_view>

#include "core/result.h"

namespace kvgrid::worker {

// How ranks are to join. They go a way only where all of them may and can.
enum class JoinWish : std::uint32_t {
    best,    // pushed and gathered; over the hosts where several processes share a GPU, which takes turns between them
    pushed,  // small outputs into the lead's memory, others as gathered ones
    gathered,    // by NCCL, between the devices' memories
    over_hosts,  // by the collective
};

// "auto", "pushed", "nccl" or "host"; invalid_argument for other texts.
Result<JoinWish> parse_join_wish(std::string_view text);

}  // namespace kvgrid::worker
