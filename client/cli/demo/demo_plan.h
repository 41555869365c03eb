#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "analysis/trace.h"
#include "core/model_spec.h"
#include "core/sharding.h"

namespace kvgrid::cli {

// What the demonstration will do, before it does anything.
struct DemoPlan {
    GridShape grid{2, 2};
    bool one_process = false;  // the workers are threads, which share a GPU
    Dtype trace_dtype = Dtype::f32;
    std::uint64_t trace_pool_bytes = 0;  // per worker

    ModelSpec long_model;
    std::int64_t context_tokens = 0;
    int decode_tokens = 0;
    std::uint64_t long_pool_bytes = 0;  // per worker
    std::string why_fewer_tokens;       // empty: as many as were asked for

    std::uint64_t memory_per_worker() const { return trace_pool_bytes + long_pool_bytes; }
};

struct DemoWish {
    std::int64_t context_tokens = 131'072;
    int decode_tokens = 16;
    int layers = 30;
    int gpus = 0;  // that the workers will compute on
};

// The geometry of SmolLM2-135M: 9 query and 3 KV heads of size 64, bf16.
ModelSpec smollm2_135m_spec(int layers);

// On GPUs: a worker on each, four at most, or two that share the only one, and pages in their memory, all in bf16. Else four workers that share this host, in f32 where
// the trace is. Halves the context until its pages, and as much again as the programs themselves may take, fit the memory that is there. Nothing
// known of the memory: as was asked.
DemoPlan plan_demo(const analysis::Trace& trace, const DemoWish& wish, std::optional<std::uint64_t> available_bytes);

}  // namespace kvgrid::cli
