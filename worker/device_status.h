#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/join_way.h"

namespace kvgrid::worker {

// What a device is and has done so far, for metrics and messages.
struct DeviceStatus {
    struct Count {
        const char* label;
        std::uint64_t value;
    };

    std::string name;  // "CPU", "NVIDIA H200 (GPU 0)"
    bool is_gpu = false;
    JoinWay join = JoinWay::none;  // of the grid that it is in, as the executor knows

    // ---- of a GPU only
    std::uint64_t memory_total = 0, memory_free = 0;  // as the driver counts them, for all its users
    std::uint64_t memory_before = 0;  // in use when this worker had only begun: the driver's own, and other programs'
    std::vector<Count> memory_taken;  // by this worker since, by kind
    std::uint64_t pinned_bytes = 0;   // of this host's memory, for transfers
    std::vector<Count> attention_calls;  // by the way they were computed
    std::uint64_t layer_calls = 0;
    std::uint64_t graph_captures = 0, graph_launches = 0;
    std::uint64_t kernel_ns = 0;        // of layer calls, on the GPU
    std::uint64_t queue_ns = 0;         // of layer calls, on the host, until all was queued
    std::uint64_t kv_bytes = 0;         // of the pages that layer calls attended to
    double schedule_imbalance = 1;      // the SM with most pages over the mean, on average over the decode calls
    std::uint64_t nccl_generation = 0;  // of the communicator that it joins through, as the executor knows; 0: none
    int nccl_communicators = 0;         // that are there
    std::uint64_t nccl_aborts = 0;      // of communicators, in all generations
};

}  // namespace kvgrid::worker
