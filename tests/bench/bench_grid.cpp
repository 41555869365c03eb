#include "tests/bench/bench_grid.h"

#include <algorithm>
#include <chrono>
#include <fstream>

namespace kvgrid::bench {

namespace {

constexpr std::int64_t kSparePagesOfStream = 4;

cli::LocalCluster start(int workers, std::uint64_t memory_bytes_per_worker) {
    return cli::LocalCluster::start({.workers = workers,
                                     .memory_bytes_per_worker = memory_bytes_per_worker,
                                     .state_dir = {},
                                     .log_level = "warn",
                                     .interrupted = {}})
        .value();
}

std::uint64_t resident_bytes_of(int process_id) {
    std::ifstream status("/proc/" + std::to_string(process_id) + "/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmRSS:")) return std::stoull(line.substr(6)) * 1024;
    }
    fatal("process " + std::to_string(process_id) + " is not there");
}

}  // namespace

BenchGrid::BenchGrid(int workers, std::uint64_t memory_bytes_per_worker)
    : cluster_(start(workers, memory_bytes_per_worker)), client_(Client::connect(cluster_.endpoint()).value()) {}

std::uint64_t BenchGrid::resident_bytes() {
    std::uint64_t bytes = 0;
    for (const ClusterWorker& worker : client_.status().value().workers) bytes += resident_bytes_of(worker.process_id);
    return bytes;
}

std::uint64_t bench_pool_bytes(const ModelSpec& spec, const GridShape& grid, std::int64_t tokens, int sequences) {
    const std::int64_t pages_of_stream = tokens / kPageTokens / grid.sequence_parts + 1 + kSparePagesOfStream;
    return pages_of_stream * kv_heads_per_part_max(spec, grid) * spec.kv_layers().size() * sequences *
           spec.page_bytes();
}

void fill(Client& client, const ModelSpec& spec, const Sequence& sequence, std::int64_t length) {
    const cli::KvChunk chunk = cli::context_chunk(spec, 0, cli::kChunkTokens);
    for (std::int64_t done = sequence.inspect().value().length; done < length;) {
        const int tokens = static_cast<int>(std::min<std::int64_t>(cli::kChunkTokens, length - done));
        const std::size_t bytes = tokens * spec.row_bytes() * spec.kv_heads;
        const auto first_of = [bytes](const std::vector<std::byte>& tensor) {
            return std::vector(tensor.begin(), tensor.begin() + static_cast<std::ptrdiff_t>(bytes));
        };
        cli::write_chunk(client, spec, sequence, {first_of(chunk.k), first_of(chunk.v)}, tokens).value();
        done += tokens;
    }
}

void decode_one(Client& client, const ModelSpec& spec, const Sequence& sequence, const cli::NewTokens& token,
                cli::Latencies& layer_calls) {
    const StepPart part{&sequence, 1};
    Step step = client.begin({&part, 1}).value();
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        const auto start = std::chrono::steady_clock::now();
        step.layer(layer, token.input()).value();
        layer_calls.add(std::chrono::steady_clock::now() - start);
    }
    step.commit().value();
}

}  // namespace kvgrid::bench
