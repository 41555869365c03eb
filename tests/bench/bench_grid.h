#pragma once

#include <cstdint>
#include <string>

#include "client/cli/demo/long_context.h"
#include "client/cli/latencies.h"
#include "client/cli/local/local_cluster.h"
#include "client/kvgrid.h"
#include "tests/bench/bench_model.h"

namespace kvgrid::bench {

// A cluster of real processes on this host, for the length of a measurement.
class BenchGrid {
  public:
    BenchGrid(int workers, std::uint64_t memory_bytes_per_worker);

    const std::string& endpoint() const { return cluster_.endpoint(); }
    Client& client() { return client_; }

    // Of all worker processes together, as the kernel counts it.
    std::uint64_t resident_bytes();

  private:
    cli::LocalCluster cluster_;
    Client client_;
};

// Pages for `tokens` tokens of each of `sequences` sequences on the fullest worker, and some to spare.
std::uint64_t bench_pool_bytes(const ModelSpec& spec, const GridShape& grid, std::int64_t tokens, int sequences);

// Grows a sequence to `length` tokens with write steps.
void fill(Client& client, const ModelSpec& spec, const Sequence& sequence, std::int64_t length);

// One step of one new token.
void decode_one(Client& client, const ModelSpec& spec, const Sequence& sequence, const cli::NewTokens& token,
                cli::Latencies& layer_calls);

}  // namespace kvgrid::bench
