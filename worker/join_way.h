#pragma once

namespace kvgrid::worker {

// Where the outputs of a grid's ranks come together.
enum class JoinWay {
    none,   // nowhere yet
    alone,  // there is one rank
    host,   // in the hosts' memory, over the ranks' collective
    nccl,   // in the GPUs' memory
    pushed  // small ones in the lead GPU's memory, where the others write them; large ones as nccl or host
};

constexpr const char* name_of(JoinWay way) {
    switch (way) {
        case JoinWay::none:
            break;
        case JoinWay::alone:
            return "alone";
        case JoinWay::host:
            return "host";
        case JoinWay::nccl:
            return "NCCL";
        case JoinWay::pushed:
            return "pushed";
    }
    return "none";
}

}  // namespace kvgrid::worker
