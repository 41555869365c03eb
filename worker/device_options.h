#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "worker/device.h"

namespace kvgrid::worker {

struct DeviceOptions {
    std::string
        device;  // "auto": a GPU where there is one, else the CPU; "cpu"; "gpu": this worker's of the host; "gpu:N"
    std::string join = "auto";       // parse_join_wish
    std::uint64_t memory_bytes = 0;  // for pages; 0: 1 GiB of a CPU's memory, a GPU's free memory less the reserve
    int threads = 1;                 // of a CPU
    int local_rank = 0;              // among the workers that were started together on this host
    int local_count = 1;
    int ranks = 1;  // of these in one process: those on one GPU share its SMs
};

struct ChosenDevice {
    std::unique_ptr<Device> device;
    std::uint64_t memory_bytes;
};

// `invalid_argument` for a text that is none of these, `no_room` with the figures where a GPU has not so much memory; what
// make_gpu_device refuses.
Result<ChosenDevice> choose_device(const DeviceOptions& options);

}  // namespace kvgrid::worker
