#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "worker/join_way.h"
#include "worker/join_wish.h"

namespace kvgrid::worker {

// What ranks tell each other, byte by byte, to agree on a way to join.
struct JoinIdentity {
    std::uint64_t host = 0, device = 0, process = 0;  // which it is, among all; the process: of its host
    std::uint32_t is_gpu = 0;
    std::uint32_t nccl_version = 0;  // 22809 is 2.28.9; 0: the rank has none
    JoinWish wish = JoinWish::best;
    std::uint32_t padding = 0;  // so that every byte that travels is set
};

struct JoinChoice {
    JoinWay way;                 // of what is not pushed
    bool pushes = false;         // small outputs
    bool share_process = false;  // some ranks are threads of one process
    std::string why;
};

// The same at each rank: in the GPUs' memory where all ranks can and may, else in the hosts'. `ranks`: all of them, by rank.
JoinChoice choose_join(std::span<const JoinIdentity> ranks);

}  // namespace kvgrid::worker
