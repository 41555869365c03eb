// Long chunks of new tokens on their way into pages: against memcpy of as many bytes by as many threads, in turn with it; the best of each
// counts. The chunks and the pages together exceed the caches.
//
//   append_bench [--benchmark_filter=bf16] ...      KVGRID_THREADS=n (default: all cores)
//
//   GB/s       bytes of k and v per second, each counted once
//   copy_GB/s  memcpy, each byte counted once
//   of_copy    GB/s / copy_GB/s
//   goal       what `of_copy` is to reach

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>

#include "kernels/append.h"
#include "tests/bench/attention_batch.h"
#include "tests/bench/machine_speed.h"

namespace kvgrid::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Case {
    Dtype dtype;
    int kv_heads, head_dim;
    int token_count;
};

std::uint32_t pages_of(const Case& run) {
    return (run.token_count + kPageTokens - 1) / kPageTokens;
}

// A chunk of k and v, and where its tokens go, in the order in which a shard lists them.
class Chunk {
  public:
    explicit Chunk(const Case& run)
        : run_(run),
          slab_(worker::HostSlab::make(std::size_t{2} * kPageTokens * run.head_dim * byte_size(run.dtype),
                                       pages_of(run) * run.kv_heads)
                    .value()) {
        const std::uint32_t list_pages = pages_of(run);
        for (int head = 0; head < run.kv_heads; ++head) {
            for (std::uint32_t page = 0; page < list_pages; ++page) {
                const int first = static_cast<int>(page) * kPageTokens;
                runs_.push_back({.page = head * list_pages + page,
                                 .slot = 0,
                                 .token_count = std::min(kPageTokens, run.token_count - first),
                                 .row = first,
                                 .head = head});
            }
        }
        std::mt19937_64 random(1);
        k_.resize(std::size_t{1} * run.token_count * run.kv_heads * run.head_dim * byte_size(run.dtype));
        fill_with_normal(k_.data(), k_.size(), run.dtype, random);
        v_ = k_;
        copy_.resize(k_.size());
    }

    kernels::Append work() const {
        return {run_.kv_heads, run_.head_dim, run_.dtype, slab_.view(), runs_, run_.token_count, k_, v_};
    }
    std::size_t bytes() const { return 2 * k_.size(); }
    double copy(kernels::ThreadPool& threads) { return copy_speed(copy_.data(), v_.data(), v_.size(), threads); }

  private:
    Case run_;
    worker::HostSlab slab_;
    std::vector<kernels::PageRun> runs_;
    std::vector<std::byte> k_, v_, copy_;
};

void append(benchmark::State& state, const Case& run) {
    kernels::ThreadPool threads(thread_count());
    Chunk chunk(run);
    const kernels::Append work = chunk.work();
    double best_seconds = 1e9, best_copy = 0;
    for (auto _ : state) {
        best_copy = std::max(best_copy, chunk.copy(threads));
        const auto start = Clock::now();
        append_cpu(work, threads);
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        best_seconds = std::min(best_seconds, seconds);
        state.SetIterationTime(seconds);
    }
    const double speed = static_cast<double>(chunk.bytes()) / best_seconds;
    state.counters["GB/s"] = speed / 1e9;
    state.counters["copy_GB/s"] = best_copy / 1e9;
    state.counters["of_copy"] = speed / best_copy;
    state.counters["goal"] = 0.5;
}

void add_cases() {
    const Case cases[] = {{Dtype::bf16, 8, 128, 32768}, {Dtype::f32, 8, 128, 16384}, {Dtype::bf16, 3, 64, 131072}};
    for (const Case& run : cases) {
        const std::string name = std::string("append/") + kvgrid::name_of(run.dtype) +
                                 "/heads:" + std::to_string(run.kv_heads) + "/d:" + std::to_string(run.head_dim) +
                                 "/tokens:" + std::to_string(run.token_count);
        benchmark::RegisterBenchmark(name.c_str(), append, run)->UseManualTime()->Unit(benchmark::kMillisecond);
    }
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) {
    kvgrid::bench::add_cases();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
