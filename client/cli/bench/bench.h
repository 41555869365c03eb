#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/latencies.h"
#include "client/kvgrid.h"

namespace kvgrid::cli {

// What a user measures on a cluster: prefill, and decoding by several clients at once.
struct BenchPlan {
    ModelSpec spec;
    int clients = 1;
    int batch = 1;                 // sequences of each client, decoded together
    std::int64_t context = 4'096;  // tokens of each sequence before it is measured
    int prefill_tokens = 512;      // of one chunk; 0: not measured
    int steps = 32;                // decoded by each client

    // For the keys and values of all sequences, with what is left free in pages.
    std::uint64_t pool_bytes_per_worker(const GridShape& grid) const;
    // Read by one layer call of one client.
    std::uint64_t kv_bytes_per_layer_call() const;
    // Read by one token of all sequences; what a cache holds of it does not come from memory.
    std::uint64_t kv_bytes() const;
};

struct BenchReport {
    std::string model;
    GridShape grid;
    double prefill_seconds = 0;
    double decode_seconds = 0;  // of all clients, from the first to the last
    std::int64_t decoded_tokens = 0;
    Latencies layer_calls;  // of the clients
    std::uint64_t grid_layer_calls = 0, merged_layer_calls = 0, join_bytes = 0;
    std::optional<double> memory_bytes_per_second;  // of this host; nothing where the floor is not its memory
};

struct BenchHooks {
    std::function<void(const char* phase, std::int64_t done, std::int64_t total)> progress;
    std::function<bool()> interrupted;
};

// On a model that is registered. `connect` makes a client of the cluster; each measuring thread has its own. The sequences are closed at
// the end, whatever happens.
Result<BenchReport> run_bench(const std::function<Result<Client>()>& connect, const RegisteredModel& model,
                              const BenchPlan& plan, const BenchHooks& hooks);

}  // namespace kvgrid::cli
